// The same products on tile registers. A block is two left tiles by two panels, four sums that the processor keeps busy; while it works on
// one block's steps, the vector units finish the sums of the block before.
#include "ending.h"
#include "tiles.h"

namespace spoutnik {

#if !defined(SPOUTNIK_TILES)
bool multiply_on_tiles(const Weight&, const Activations&, long, int, int, int, int, Target, const char*) { return false; }
#else
namespace {

constexpr int SIDE = 2 * TILE_ROWS;  // rows and columns of a block

template <bool BYTES, bool BOTH> inline void dot_tiles() {
  if constexpr (BYTES) {
    _tile_dpbssd(0, 4, 6); _tile_dpbssd(1, 4, 7);
    if constexpr (BOTH) { _tile_dpbssd(2, 5, 6); _tile_dpbssd(3, 5, 7); }
  } else {
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    if constexpr (BOTH) { _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7); }
  }
}

// Sums of 16 left rows (32 if BOTH) and two panels over all steps, into `sums` [32][32]. Between steps `aside(k)` does something else, and
// `lines` cache lines a step are fetched from `next` on: the weights that come after these.
template <bool BYTES, bool BOTH, class Aside>
inline void block(const char* left, long stride, const char* panel, const char* other, int steps, const char* next, int lines, float* sums, Aside aside) {
  _tile_zero(0); _tile_zero(1);
  if constexpr (BOTH) { _tile_zero(2); _tile_zero(3); }
  for (int k = 0; k < steps; k++) {
    _tile_loadd(4, left + k * 64, stride);
    _tile_loadd(6, panel + (long)k * TILE_BYTES, 64);
    _tile_loadd(7, other + (long)k * TILE_BYTES, 64);
    if constexpr (BOTH) _tile_loadd(5, left + TILE_ROWS * stride + k * 64, stride);
    dot_tiles<BYTES, BOTH>();
    for (int i = 0; i < lines; i++, next += 64) _mm_prefetch(next, _MM_HINT_T1);
    aside(k);
  }
  _tile_stored(0, sums, SIDE * 4); _tile_stored(1, sums + TILE_ROWS, SIDE * 4);
  if constexpr (BOTH) { _tile_stored(2, sums + TILE_ROWS * SIDE, SIDE * 4); _tile_stored(3, sums + TILE_ROWS * SIDE + TILE_ROWS, SIDE * 4); }
}

template <bool BYTES> void multiply_as(const Weight& w, const Activations& from, long first, int rows, int segment, int panel, int last, Target to, const char* after) {
  constexpr int PER = BYTES ? 2 : 1, BLOCK = SIDE / PER;  // left rows a row; rows a block
  const int element = BYTES ? 1 : 2, steps = w.padded_inputs * element / 64;
  const long stride = (long)from.layout.stride * element;
  const char* left = from.memory.data + PER * first * stride + (long)segment * from.layout.padded * element;
  const int blocks = (rows + BLOCK - 1) / BLOCK, lines = (2 * TILE_BYTES / 64 + blocks - 1) / blocks;
  alignas(64) float storage[2][SIDE * SIDE];
  float *sums = storage[0], *finished = storage[1];
  int done_panel = 0, done_row = 0, done_rows = 0;
  bool done_pair = false;
  f32x16 scales[2] = {};
  auto finish = [&](int begin, int end) {
    const float *row = finished + begin * PER * SIDE, *row_scale = from.scale.data() + (first + done_row + begin) * from.layout.segments + segment;
    for (int r = begin; r < end; r++, row += PER * SIDE, row_scale += from.layout.segments) {
      f32x16 value[2];
      for (int p = 0; p < 2; p++) {
        if constexpr (BYTES) value[p] = finish_int8(load<i32x16>(row + p * LANES), load<i32x16>(row + SIDE + p * LANES), scales[p] * *row_scale);
        else value[p] = load<f32x16>(row + p * LANES);
      }
      deliver(w, to, done_row + r, done_panel, value[0], value[1], done_pair);
    }
  };
  for (; panel < last; panel += 2) {
    const bool pair = panel + 1 < last;
    const char *one = w.panel(panel), *other = w.panel(panel + pair);
    for (int b = 0; b < blocks; b++) {
      const int begin = b * BLOCK, count = std::min(BLOCK, rows - begin), a_step = (done_rows + steps - 1) / steps;
      auto aside = [&](int k) { finish(std::min(k * a_step, done_rows), std::min((k + 1) * a_step, done_rows)); };
      const char *own = left + PER * begin * stride, *next = (panel + 2 < last ? other + w.panel_bytes : after) + (long)b * lines * 64 * steps;
      if (count * PER > TILE_ROWS) block<BYTES, true>(own, stride, one, other, steps, next, lines, sums, aside);
      else block<BYTES, false>(own, stride, one, other, steps, next, lines, sums, aside);
      std::swap(sums, finished);
      done_panel = panel, done_pair = pair, done_row = begin, done_rows = count;
      if constexpr (BYTES) scales[0] = load<f32x16>(one + TILE_BYTES * (long)steps), scales[1] = load<f32x16>(other + TILE_BYTES * (long)steps);
    }
  }
  finish(0, done_rows);
}

}  // namespace

bool multiply_on_tiles(const Weight& w, const Activations& from, long first, int rows, int segment, int panel, int last, Target to,
                       const char* after) {
  if (!tiles_granted() || (w.format != BFLOAT16 && w.format != INT8)) return false;
  if (w.format == INT8) multiply_as<true>(w, from, first, rows, segment, panel, last, to, after);
  else multiply_as<false>(w, from, first, rows, segment, panel, last, to, after);
  return true;
}
#endif

}  // namespace spoutnik

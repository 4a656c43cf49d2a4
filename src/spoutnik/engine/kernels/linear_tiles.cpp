// The same products on tile registers. A block is two left tiles by two panels, four sums that the processor keeps busy; while it works on
// one block's steps, the vector units finish the sums of the block before.
#include "ending.h"
#include "tiles.h"

namespace spoutnik {

#if !defined(SPOUTNIK_TILES)
bool multiply_on_tiles(const Weight&, const Packed&, long, int, int, int, int, Target, const char*) { return false; }
#else
namespace {

constexpr int SIDE = 2 * TILE_ROWS;  // rows and columns of a block
constexpr int NEAR = 16;             // with so many lines to fetch a step there is little to compute: then the next steps' are fetched twice

template <bool BYTES, bool BOTH> inline void dot_tiles() {
  if constexpr (BYTES) {
    _tile_dpbssd(0, 4, 6); _tile_dpbssd(1, 4, 7);
    if constexpr (BOTH) { _tile_dpbssd(2, 5, 6); _tile_dpbssd(3, 5, 7); }
  } else {
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    if constexpr (BOTH) { _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7); }
  }
}

// Which steps of the inputs a block takes, and whether the sums begin or go on from `sums`.
struct Stretch {
  int begin, count;
};

// Sums of 16 left rows (32 if BOTH) and two panels over a stretch of steps, into `sums` [32][32]. Between steps `aside(k)` does something
// else, and `lines` cache lines a step are fetched from `next` on: the weights that come after these. Left rows pass by the nearest cache,
// where the panels stay for the next rows.
template <bool BYTES, bool BOTH, class Aside>
inline void block(const char* left, long stride, const char* panel, const char* other, Stretch stretch, const char* next, int lines, float* sums, Aside aside) {
  if (stretch.begin) {
    _tile_loadd(0, sums, SIDE * 4); _tile_loadd(1, sums + TILE_ROWS, SIDE * 4);
    if constexpr (BOTH) { _tile_loadd(2, sums + TILE_ROWS * SIDE, SIDE * 4); _tile_loadd(3, sums + TILE_ROWS * SIDE + TILE_ROWS, SIDE * 4); }
  } else {
    _tile_zero(0); _tile_zero(1);
    if constexpr (BOTH) { _tile_zero(2); _tile_zero(3); }
  }
  left += stretch.begin * 64l, panel += stretch.begin * (long)TILE_BYTES, other += stretch.begin * (long)TILE_BYTES;
  for (int k = 0; k < stretch.count; k++) {
    _tile_stream_loadd(4, left + k * 64, stride);
    _tile_loadd(6, panel + (long)k * TILE_BYTES, 64);
    _tile_loadd(7, other + (long)k * TILE_BYTES, 64);
    if constexpr (BOTH) _tile_stream_loadd(5, left + TILE_ROWS * stride + k * 64, stride);
    dot_tiles<BYTES, BOTH>();
    for (int i = 0; i < lines; i++, next += 64) _mm_prefetch(next, _MM_HINT_T1);
    for (int i = 0; lines >= NEAR && i < TILE_BYTES; i += 64) {
      _mm_prefetch(panel + (k + 2l) * TILE_BYTES + i, _MM_HINT_T0);
      _mm_prefetch(other + (k + 2l) * TILE_BYTES + i, _MM_HINT_T0);
    }
    aside(k);
  }
  _tile_stored(0, sums, SIDE * 4); _tile_stored(1, sums + TILE_ROWS, SIDE * 4);
  if constexpr (BOTH) { _tile_stored(2, sums + TILE_ROWS * SIDE, SIDE * 4); _tile_stored(3, sums + TILE_ROWS * SIDE + TILE_ROWS, SIDE * 4); }
}

// Blocks of left rows that stay in the second cache while all panels pass, and steps of two panels that stay in the first one while those
// blocks pass.
constexpr int MOST_BLOCKS = 16, MOST_STEPS = 18;
constexpr long SECOND_CACHE = 768 << 10;  // what left rows may take of it

template <bool BYTES> void multiply_as(const Weight& w, const Packed& from, long first, int rows, int segment, int panel, int last, Target to, const char* after) {
  constexpr int PER = BYTES ? 2 : 1, BLOCK = SIDE / PER;  // left rows a row; rows a block
  const int element = BYTES ? 1 : 2, steps = w.padded_inputs * element / 64;
  const long stride = (long)from.layout.stride * element;
  const char* left = from.data + PER * first * stride + (long)segment * from.layout.padded * element;
  const int blocks = (rows + BLOCK - 1) / BLOCK, at_once = std::clamp(int(SECOND_CACHE / (SIDE * stride)), 1, std::min(blocks, MOST_BLOCKS));
  const int lines = (2 * TILE_BYTES / 64 + at_once - 1) / at_once;
  const int stretches = blocks > 2 ? (steps + MOST_STEPS - 1) / MOST_STEPS : 1, most = (steps + stretches - 1) / stretches;
  alignas(64) float sums[MOST_BLOCKS][SIDE * SIDE];
  const float* finished = sums[0];
  int done_panel = 0, done_row = 0, done_rows = 0;
  bool done_pair = false;
  f32x16 scales[2] = {};
  auto finish = [&](int begin, int end) {
    const float *row = finished + begin * PER * SIDE, *row_scale = from.scale + (first + done_row + begin) * from.layout.segments + segment;
    for (int r = begin; r < end; r++, row += PER * SIDE, row_scale += from.layout.segments) {
      f32x16 value[2];
      for (int p = 0; p < 2; p++) {
        if constexpr (BYTES) value[p] = finish_int8(load<i32x16>(row + p * LANES), load<i32x16>(row + SIDE + p * LANES), scales[p] * *row_scale);
        else value[p] = load<f32x16>(row + p * LANES);
      }
      deliver(w, to, done_row + r, done_panel, value[0], value[1], done_pair);
    }
  };
  for (int top = 0; top < blocks; top += at_once)
    for (int p = panel; p < last; p += 2) {
      const bool pair = p + 1 < last;
      const char *one = w.panel(p), *other = w.panel(p + pair), *next = p + 2 < last ? other + w.panel_bytes : after;
      for (int begin = 0; begin < steps; begin += most) {
        const Stretch stretch{begin, std::min(most, steps - begin)};
        for (int b = top; b < std::min(blocks, top + at_once); b++, next += lines * 64l * stretch.count) {
          const int count = std::min(BLOCK, rows - b * BLOCK), a_step = (done_rows + stretch.count - 1) / stretch.count;
          auto aside = [&](int k) { finish(std::min(k * a_step, done_rows), std::min((k + 1) * a_step, done_rows)); };
          const char* own = left + PER * (long)b * BLOCK * stride;
          float* into = stretches > 1 ? sums[b - top] : sums[b % 2];
          if (count * PER > TILE_ROWS) block<BYTES, true>(own, stride, one, other, stretch, next, lines, into, aside);
          else block<BYTES, false>(own, stride, one, other, stretch, next, lines, into, aside);
          done_rows = 0;
          if (begin + stretch.count < steps) continue;
          finished = into, done_panel = p, done_pair = pair, done_row = b * BLOCK, done_rows = count;
          if constexpr (BYTES) scales[0] = load<f32x16>(one + TILE_BYTES * (long)steps), scales[1] = load<f32x16>(other + TILE_BYTES * (long)steps);
        }
      }
    }
  finish(0, done_rows);
}

// ---- 4-bit weights: tiles half as deep, one group of inputs, whose sums are scaled and added up before the next
constexpr int INT4_ROWS = 64, INT4_BLOCK = SIDE / 2;  // rows whose float sums are held; rows a block

// The codes of one group of a panel as bytes, eight steps of 64.
inline void unpack(const char* group, char* bytes) {
  for (int pair = 0; pair < GROUP / 8; pair++) {
    const i32x16 codes = load<i32x16>(group + pair * 64);
    store(bytes + pair * 128, codes & 0x0f0f0f0f), store(bytes + pair * 128 + 64, (i32x16)((u32x16)codes >> 4) & 0x0f0f0f0f);
  }
}

template <bool BOTH> inline void dot_group(const char* left, long stride, int32_t* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_loadd(4, left, stride);
  _tile_dpbssd(0, 4, 6);
  _tile_dpbssd(1, 4, 7);
  _tile_stored(0, sums, SIDE * 4);
  _tile_stored(1, sums + TILE_ROWS, SIDE * 4);
  if constexpr (BOTH) {
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(5, left + TILE_ROWS * stride, stride);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
    _tile_stored(2, sums + TILE_ROWS * SIDE, SIDE * 4);
    _tile_stored(3, sums + TILE_ROWS * SIDE + TILE_ROWS, SIDE * 4);
  }
}

// Up to INT4_ROWS rows times panels `panel` and `other`, into `totals` [rows][32], in units of the rows' scales.
void multiply_int4_panels(const Weight& w, const char* left, long stride, const int32_t* row_sums, int rows, int panel, int other, const char* next,
                          float* totals) {
  alignas(64) int32_t storage[2][SIDE * SIDE];
  alignas(64) char bytes[2 * TILE_BYTES];
  std::fill_n(totals, rows * SIDE, 0.0f);
  const long groups = stride / GROUP;
  const int of_weight = w.padded_inputs / GROUP, blocks = (rows + INT4_BLOCK - 1) / INT4_BLOCK, lines = 2 * INT4_GROUP / 64;
  for (int g = 0; g < of_weight; g++, next += 64 * lines) {
    const char* group[2] = {w.panel(panel) + g * INT4_GROUP, w.panel(other) + g * INT4_GROUP};
    f32x16 scale[2], minimum[2];
    for (int p = 0; p < 2; p++) {
      unpack(group[p], bytes + p * TILE_BYTES / 2);
      scale[p] = from_half(load<u16x16>(group[p] + INT4_CODES)), minimum[p] = from_half(load<u16x16>(group[p] + INT4_CODES + 32));
    }
    for (int i = 0; i < lines; i++) _mm_prefetch(next + 64 * i, _MM_HINT_T1);
    _tile_loadd(6, bytes, 64);
    _tile_loadd(7, bytes + TILE_BYTES / 2, 64);
    auto add = [&](int b) {
      const int32_t* sums = storage[b % 2];
      for (int r = b * INT4_BLOCK; r < std::min(rows, (b + 1) * INT4_BLOCK); r++, sums += 2 * SIDE)
        for (int p = 0; p < 2; p++) {
          float* total = totals + r * SIDE + p * LANES;
          const i32x16 high = load<i32x16>(sums + p * LANES), low = load<i32x16>(sums + SIDE + p * LANES);
          store(total, add_int4_group(load<f32x16>(total), high, low, scale[p], minimum[p], row_sums[r * groups + g]));
        }
    };
    for (int b = 0; b < blocks; b++) {
      const char* own = left + (long)b * SIDE * stride + g * GROUP;
      if (2 * (rows - b * INT4_BLOCK) > TILE_ROWS) dot_group<true>(own, stride, storage[b % 2]);
      else dot_group<false>(own, stride, storage[b % 2]);
      if (b) add(b - 1);
    }
    add(blocks - 1);
  }
}

void multiply_int4(const Weight& w, const Packed& from, long first, int rows, int segment, int panel, int last, Target to, const char* after) {
  const long stride = from.layout.stride;
  alignas(64) float totals[INT4_ROWS * SIDE];
  shape_tiles(GROUP);
  for (; panel < last; panel += 2) {
    const bool pair = panel + 1 < last;
    const char* next = panel + 2 < last ? w.panel(panel + 2) : after;
    for (int begin = 0; begin < rows; begin += INT4_ROWS) {
      const int count = std::min(INT4_ROWS, rows - begin);
      const char* left = from.data + 2 * (first + begin) * stride + (long)segment * from.layout.padded;
      const int32_t* row_sums = from.sum + (first + begin) * (stride / GROUP) + segment * from.layout.padded / GROUP;
      multiply_int4_panels(w, left, stride, row_sums, count, panel, panel + pair, next, totals);
      for (int r = 0; r < count; r++) {
        const float scale = from.scale[(first + begin + r) * from.layout.segments + segment];
        const f32x16 one = load<f32x16>(totals + r * SIDE) * scale, two = load<f32x16>(totals + r * SIDE + LANES) * scale;
        deliver(w, to, begin + r, panel, one, two, pair);
      }
    }
  }
  shape_tiles(64);
}

}  // namespace

bool multiply_on_tiles(const Weight& w, const Packed& from, long first, int rows, int segment, int panel, int last, Target to,
                       const char* after) {
  constexpr int FEW = 4;  // rows for which unpacking 4-bit codes into tiles does not pay
  if (!tiles_granted() || w.format == FLOAT32 || (w.format == INT4 && rows <= FEW)) return false;
  if (w.format == INT4) multiply_int4(w, from, first, rows, segment, panel, last, to, after);
  else if (w.format == INT8) multiply_as<true>(w, from, first, rows, segment, panel, last, to, after);
  else multiply_as<false>(w, from, first, rows, segment, panel, last, to, after);
  return true;
}
#endif

}  // namespace spoutnik

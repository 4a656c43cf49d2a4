#include "linear.h"

#include <array>

#include "ending.h"

namespace spoutnik {
namespace {

// ---- products with float32 or bfloat16 weights
template <class T, int ROWS, int PANELS>
inline void accumulate(const Weight& w, const Packed& from, long first, int segment, int panel, f32x16 (&sums)[ROWS][PANELS]) {
  typedef typename T::value value;
  const value* a = (const value*)from.data + first * from.layout.stride + segment * from.layout.padded;
  const char* weights = w.panel(panel);
  for (auto& row : sums)
    for (f32x16& sum : row) sum = f32x16{};
  for (int k = 0; k < w.padded_inputs; k += T::step, weights += 64) {
    typename T::lanes w_lanes[PANELS];
    for (int p = 0; p < PANELS; p++) w_lanes[p] = T::read((const value*)(weights + p * w.panel_bytes));
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      auto x = T::repeat(a + (long)r * from.layout.stride + k);
      for (int p = 0; p < PANELS; p++) sums[r][p] = T::dot(sums[r][p], w_lanes[p], x);
    }
  }
}

// ---- products of bytes: two byte rows a row, exact
inline i32x16 four(const char* bytes) { return i32x16{} + load<int32_t>(bytes); }

// Vectors multiply unsigned by signed bytes only, so signed weights are raised by 128, and the rows' sums take that back, exactly.
inline i32x16 raised(const char* weights) { return load<i32x16>(weights) ^ (int32_t)0x80808080; }

template <int ROWS, int PANELS>
inline void accumulate_int8(const Weight& w, const Packed& from, long first, int segment, int panel, f32x16 (&sums)[ROWS][PANELS]) {
  const char *a = from.data + 2 * first * from.layout.stride + segment * from.layout.padded, *weights = w.panel(panel);
  i32x16 high[ROWS][PANELS], low[ROWS][PANELS];
  for (int r = 0; r < ROWS; r++) {
    const int32_t* sums = &from.sum[2 * ((first + r) * from.layout.segments + segment)];
    for (int p = 0; p < PANELS; p++) high[r][p] = i32x16{} - 128 * sums[0], low[r][p] = i32x16{} - 128 * sums[1];
  }
  for (int k = 0; k < w.padded_inputs; k += 4, weights += 64) {
    i32x16 w_lanes[PANELS];
    for (int p = 0; p < PANELS; p++) w_lanes[p] = raised(weights + p * w.panel_bytes);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const i32x16 h = four(a + 2l * r * from.layout.stride + k), l = four(a + (2l * r + 1) * from.layout.stride + k);
      for (int p = 0; p < PANELS; p++) high[r][p] = dot_bytes(high[r][p], w_lanes[p], h), low[r][p] = dot_bytes(low[r][p], w_lanes[p], l);
    }
  }
  for (int r = 0; r < ROWS; r++) {
    const float row_scale = from.scale[(first + r) * from.layout.segments + segment];
    for (int p = 0; p < PANELS; p++) sums[r][p] = finish_int8(high[r][p], low[r][p], load<f32x16>(weights + p * w.panel_bytes) * row_scale);
  }
}

template <int ROWS, int PANELS>
inline void accumulate_int4(const Weight& w, const Packed& from, long first, int segment, int panel, f32x16 (&sums)[ROWS][PANELS]) {
  const char *a = from.data + 2 * first * from.layout.stride + segment * from.layout.padded, *weights = w.panel(panel);
  const long groups = from.layout.stride / GROUP;
  const int32_t* row_sums = from.sum + first * groups + segment * from.layout.padded / GROUP;
  for (auto& row : sums)
    for (f32x16& sum : row) sum = f32x16{};
  for (int g = 0; g < w.padded_inputs / GROUP; g++, a += GROUP, weights += INT4_GROUP) {
    i32x16 high[ROWS][PANELS] = {}, low[ROWS][PANELS] = {};
#pragma GCC unroll 4
    for (int pair = 0; pair < GROUP / 8; pair++)  // two steps of four inputs share 64 bytes
      for (int p = 0; p < PANELS; p++) {
        const i32x16 codes = load<i32x16>(weights + p * w.panel_bytes + pair * 64);
        const i32x16 even = codes & 0x0f0f0f0f, odd = (i32x16)((u32x16)codes >> 4) & 0x0f0f0f0f;
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
          const char *h = a + 2l * r * from.layout.stride + pair * 8, *l = h + from.layout.stride;
          high[r][p] = dot_bytes(dot_bytes(high[r][p], even, four(h)), odd, four(h + 4));
          low[r][p] = dot_bytes(dot_bytes(low[r][p], even, four(l)), odd, four(l + 4));
        }
      }
    for (int p = 0; p < PANELS; p++) {
      const char* scales = weights + p * w.panel_bytes + INT4_CODES;
      const f32x16 scale = from_half(load<u16x16>(scales)), minimum = from_half(load<u16x16>(scales + 32));
      for (int r = 0; r < ROWS; r++) sums[r][p] = add_int4_group(sums[r][p], high[r][p], low[r][p], scale, minimum, row_sums[r * groups + g]);
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (f32x16& sum : sums[r]) sum = sum * from.scale[(first + r) * from.layout.segments + segment];
}

template <int FORMAT, int ROWS, int PANELS>
void block(const Weight& w, const Packed& from, long first, int segment, int panel, Target to) {
  f32x16 sums[ROWS][PANELS];
  if constexpr (FORMAT == FLOAT32) accumulate<Float32>(w, from, first, segment, panel, sums);
  if constexpr (FORMAT == BFLOAT16) accumulate<BFloat16>(w, from, first, segment, panel, sums);
  if constexpr (FORMAT == INT8) accumulate_int8(w, from, first, segment, panel, sums);
  if constexpr (FORMAT == INT4) accumulate_int4(w, from, first, segment, panel, sums);
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < PANELS; p += 2) deliver(w, to, r, panel + p, sums[r][p], sums[r][std::min(p + 1, PANELS - 1)], p + 1 < PANELS);
}

typedef void (*Block)(const Weight&, const Packed&, long, int, int, Target);

// BLOCKS[rows - 1] for up to so many rows at once, with two panels, with one; and one row with four panels.
template <int FORMAT> struct Blocks {
#if defined(__AVX512F__)
  static constexpr int MOST = FORMAT == FLOAT32 || FORMAT == BFLOAT16 ? 12 : FORMAT == INT8 ? 6 : 4;
#else
  static constexpr int MOST = FORMAT == FLOAT32 || FORMAT == BFLOAT16 ? 4 : 2;  // narrower registers hold fewer sums
#endif
  template <int PANELS, size_t... I> static std::array<Block, MOST> table(std::index_sequence<I...>) { return {block<FORMAT, I + 1, PANELS>...}; }
  std::array<Block, MOST> two = table<2>(std::make_index_sequence<MOST>()), one = table<1>(std::make_index_sequence<MOST>());
};

template <int FORMAT> void multiply_as(const Weight& w, const Packed& from, long first, int rows, int segment, int panel, int last, Target to) {
  static const Blocks<FORMAT> blocks;
  const int batches = (rows + blocks.MOST - 1) / blocks.MOST;
  while (panel < last) {
    const int panels = rows == 1 && last - panel >= 4 ? 4 : last - panel >= 2 ? 2 : 1;
    for (int b = 0; b < batches; b++) {
      const int begin = rows * b / batches, count = rows * (b + 1) / batches - begin;
      Block chosen = panels == 4 ? block<FORMAT, 1, 4> : panels == 2 ? blocks.two[count - 1] : blocks.one[count - 1];
      chosen(w, from, first + begin, segment, panel, {to.rows + begin * to.stride, to.stride, to.ending});
    }
    panel += panels;
  }
}

}  // namespace

void multiply(const Weight& w, const Packed& from, long first, int rows, int segment, int panel, int last, Target to, const char* after) {
  if (multiply_on_tiles(w, from, first, rows, segment, panel, last, to, after)) return;
  switch (w.format) {
    case FLOAT32: return multiply_as<FLOAT32>(w, from, first, rows, segment, panel, last, to);
    case BFLOAT16: return multiply_as<BFLOAT16>(w, from, first, rows, segment, panel, last, to);
    case INT8: return multiply_as<INT8>(w, from, first, rows, segment, panel, last, to);
    case INT4: return multiply_as<INT4>(w, from, first, rows, segment, panel, last, to);
  }
}

}  // namespace spoutnik

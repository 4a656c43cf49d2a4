#include "adapter.h"

namespace spoutnik {
namespace {

template <bool BF16> inline f32x16 read(const void* from, long index) {
  if constexpr (BF16) return from_bf16(load<u16x16>((const uint16_t*)from + index * LANES));
  else return load<f32x16>((const float*)from + index * LANES);
}

// Unlike splat, free: the product that needs it reads it from memory.
inline f32x16 repeat(const float* from) { return (f32x16)(i32x16{} + load<int32_t>(from)); }

template <bool BF16, int ROWS> void down_rows(const Addition& a, int part, const float* const* from, float* const* to) {
  const int begin = int((long)a.inputs * part / PARTS), end = int((long)a.inputs * (part + 1) / PARTS);
  for (int panel = 0; panel < a.ranks / LANES; panel++) {
    const long base = (long)panel * a.inputs;
    f32x16 sums[ROWS][CHAINS] = {};
    int k = begin;
    for (; k + CHAINS <= end; k += CHAINS)
#pragma GCC unroll 4
      for (int c = 0; c < CHAINS; c++) {
        const f32x16 weights = read<BF16>(a.down, base + k + c);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) sums[r][c] = fma(weights, repeat(from[r] + k + c), sums[r][c]);
      }
    for (; k < end; k++)
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) sums[r][0] = fma(read<BF16>(a.down, base + k), repeat(from[r] + k), sums[r][0]);
    for (int r = 0; r < ROWS; r++) store(to[r] + panel * LANES, sums[r][0] + sums[r][1]);
  }
}

template <bool BF16, int ROWS> void up_rows(const Addition& a, int panel, int outputs, const float* low, float* const* to) {
  const int32_t *reach = a.reach + 3 * panel, first = reach[1];
  f32x16 sums[ROWS] = {};
  for (int j = 0; j < reach[2]; j++) {
    const f32x16 weights = read<BF16>(a.up, reach[0] + j);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) sums[r] = fma(weights, repeat(low + r * a.ranks + first + j), sums[r]);
  }
  for (int r = 0; r < ROWS; r++) {
    float* out = to[r] + panel * LANES;
    if (outputs >= LANES) store(out, load<f32x16>(out) + sums[r]);
    else for (int i = 0; i < outputs; i++) out[i] += sums[r][i];
  }
}

template <bool BF16, int ROWS = FELLOWS> void down_as(const Addition& a, int part, int rows, const float* const* from, float* const* to) {
  if (rows == ROWS) return down_rows<BF16, ROWS>(a, part, from, to);
  if constexpr (ROWS > 1) down_as<BF16, ROWS - 1>(a, part, rows, from, to);
}

template <bool BF16, int ROWS = FELLOWS> void up_as(const Addition& a, int panel, int outputs, int rows, const float* low, float* const* to) {
  if (rows == ROWS) return up_rows<BF16, ROWS>(a, panel, outputs, low, to);
  if constexpr (ROWS > 1) up_as<BF16, ROWS - 1>(a, panel, outputs, rows, low, to);
}

}  // namespace

void go_down(const Addition& a, int part, int rows, const float* const* from, float* const* to) {
  a.bf16 ? down_as<true>(a, part, rows, from, to) : down_as<false>(a, part, rows, from, to);
}

void go_up(const Addition& a, int panel, int outputs, int rows, const float* low, float* const* to) {
  a.bf16 ? up_as<true>(a, panel, outputs, rows, low, to) : up_as<false>(a, panel, outputs, rows, low, to);
}

}  // namespace spoutnik

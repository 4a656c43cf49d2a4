// What vectors and tiles do alike with the sums of a product: integers to floats, and floats to where they belong.
#pragma once
#include <algorithm>

#include "linear.h"

namespace spoutnik {

// `scale` is that of the weight's outputs times that of the row.
static inline f32x16 finish_int8(i32x16 high, i32x16 low, f32x16 scale) {
  return fma(__builtin_convertvector(high, f32x16), splat(256.0f), __builtin_convertvector(low, f32x16)) * scale;
}

// One group of 4-bit weights: sum += dot * scale + (sum of the row) * minimum, all in units of the row's scale. The dot is below 2^24.
static inline f32x16 add_int4_group(f32x16 sum, i32x16 high, i32x16 low, f32x16 scale, f32x16 minimum, int32_t row_sum) {
  sum = fma(__builtin_convertvector((high << 8) + low, f32x16), scale, sum);
  return fma(splat((float)row_sum), minimum, sum);
}

static inline f32x16 with_bias(const Weight& w, int panel, f32x16 sums) {
  return w.bias.empty() ? sums : sums + load<f32x16>(&w.bias[panel * LANES]);
}

// The sums of `panel` and, if `pair`, of the next one, for one row of the target.
static inline void deliver(const Weight& w, const Target& to, long row, int panel, f32x16 first, f32x16 second, bool pair) {
  first = with_bias(w, panel, first);
  if (pair) second = with_bias(w, panel + 1, second);
  float* out = to.rows + row * to.stride + panel * LANES;
  if (to.ending == GATE) return store(to.rows + row * to.stride + panel / 2 * LANES, silu(first) * second);
  if ((panel + 1 + pair) * LANES <= w.outputs) {
    store(out, to.ending == ADD ? load<f32x16>(out) + first : first);
    if (pair) store(out + LANES, to.ending == ADD ? load<f32x16>(out + LANES) + second : second);
    return;
  }
  for (int i = 0; i < std::min(LANES * (1 + pair), w.outputs - panel * LANES); i++) {
    const float value = i < LANES ? first[i] : second[i - LANES];
    out[i] = to.ending == ADD ? out[i] + value : value;
  }
}

// Products on tiles (linear_tiles.cpp), for the formats that have them, where the processor does.
bool multiply_on_tiles(const Weight& weight, const Packed& from, long first, int rows, int segment, int panel, int last, Target to,
                       const char* after);

}  // namespace spoutnik

#include "linear.h"

#include <algorithm>
#include <array>

namespace spoutnik {
namespace {

// ---- products with float32 or bfloat16 weights
template <class T, int ROWS, int PANELS>
inline void accumulate(const Weight& w, const Activations& from, long first, int padded, int offset, int panel, f32x16 (&sums)[ROWS][PANELS]) {
  typedef typename T::value value;
  const value* a = (const value*)from.memory.data + first * padded + offset;
  const char* weights = w.memory.data + panel * w.panel_bytes;
  for (auto& row : sums)
    for (f32x16& sum : row) sum = f32x16{};
  for (int k = 0; k < w.padded_inputs; k += T::step, weights += 64) {
    typename T::lanes w_lanes[PANELS];
    for (int p = 0; p < PANELS; p++) w_lanes[p] = T::read((const value*)(weights + p * w.panel_bytes));
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      auto x = T::repeat(a + (long)r * padded + k);
      for (int p = 0; p < PANELS; p++) sums[r][p] = T::dot(sums[r][p], w_lanes[p], x);
    }
  }
}

// ---- products of bytes: exact within a group, then scaled and summed in float32
// A panel holds the codes of all its groups, then for each group 16 scales (and minima) in bfloat16.
struct Int8 {
  static constexpr int CODES = 16 * GROUP, SCALES = 32;
  // Weights are stored plus 128, which the rows' sums take back.
  static i32x16 start(int32_t sum) { return i32x16{} - 128 * sum; }
  static i32x16 read(const char* group, int k) { return load<i32x16>(group + k * 64); }
  static f32x16 finish(const char* scales, i32x16 dot, float, f32x16 x_scale, f32x16 sum) {
    return fma(__builtin_convertvector(dot, f32x16) * from_bf16(load<u16x16>(scales)), x_scale, sum);
  }
};

struct Int4 {
  static constexpr int CODES = 16 * GROUP / 2, SCALES = 64;
  static i32x16 start(int32_t) { return i32x16{}; }
  static i32x16 read(const char* group, int k) {  // two steps of four inputs share 64 bytes
    i32x16 codes = load<i32x16>(group + k / 2 * 64);
    return (k & 1 ? (i32x16)((u32x16)codes >> 4) : codes) & 0x0f0f0f0f;
  }
  static f32x16 finish(const char* scales, i32x16 dot, float x_sum, f32x16 x_scale, f32x16 sum) {
    f32x16 value = fma(__builtin_convertvector(dot, f32x16), from_bf16(load<u16x16>(scales)), from_bf16(load<u16x16>(scales + 32)) * x_sum);
    return fma(value, x_scale, sum);
  }
};

template <class T, int ROWS, int PANELS>
inline void accumulate_bytes(const Weight& w, const Activations& from, long first, int padded, int offset, int panel, f32x16 (&sums)[ROWS][PANELS]) {
  const char* a = from.memory.data + first * padded + offset;
  const long groups = padded / GROUP;
  const float* scales = from.scale.data() + first * groups + offset / GROUP;
  const int32_t* x_sums = from.sum.data() + first * groups + offset / GROUP;
  const char* weights = w.memory.data + panel * w.panel_bytes;
  const char* w_scales = weights + (long)w.padded_inputs / GROUP * T::CODES;
  for (auto& row : sums)
    for (f32x16& sum : row) sum = f32x16{};
  for (int g = 0; g < w.padded_inputs / GROUP; g++, weights += T::CODES, w_scales += T::SCALES) {
    i32x16 dots[ROWS][PANELS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
      for (int p = 0; p < PANELS; p++) dots[r][p] = T::start(x_sums[r * groups + g]);
#pragma GCC unroll 8
    for (int k = 0; k < GROUP / 4; k++) {
      i32x16 w_lanes[PANELS];
      for (int p = 0; p < PANELS; p++) w_lanes[p] = T::read(weights + p * w.panel_bytes, k);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++) {
        i32x16 x = i32x16{} + load<int32_t>(a + (long)r * padded + g * GROUP + 4 * k);
        for (int p = 0; p < PANELS; p++) dots[r][p] = dot_bytes(dots[r][p], w_lanes[p], x);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
      for (int p = 0; p < PANELS; p++)
        sums[r][p] = T::finish(w_scales + p * w.panel_bytes, dots[r][p], (float)x_sums[r * groups + g], splat(scales[r * groups + g]), sums[r][p]);
  }
}

template <int FORMAT, int ROWS, int PANELS>
void tile(const Weight& w, const Activations& from, long first, int padded, int offset, int panel, Target to) {
  f32x16 sums[ROWS][PANELS];
  if constexpr (FORMAT == FLOAT32) accumulate<Float32>(w, from, first, padded, offset, panel, sums);
  if constexpr (FORMAT == BFLOAT16) accumulate<BFloat16>(w, from, first, padded, offset, panel, sums);
  if constexpr (FORMAT == INT8) accumulate_bytes<Int8>(w, from, first, padded, offset, panel, sums);
  if constexpr (FORMAT == INT4) accumulate_bytes<Int4>(w, from, first, padded, offset, panel, sums);
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < PANELS; p++) {
      int column = (panel + p) * LANES, count = std::min(LANES, w.outputs - column);
      f32x16 value = sums[r][p];
      if (!w.bias.empty()) value = value + load<f32x16>(&w.bias[column]);
      float* out = to.rows + r * to.stride + column;
      if (count == LANES) {
        store(out, to.add ? load<f32x16>(out) + value : value);
      } else {
        for (int i = 0; i < count; i++) out[i] = to.add ? out[i] + value[i] : value[i];
      }
    }
}

typedef void (*Tile)(const Weight&, const Activations&, long, int, int, int, Target);

// TILES[rows - 1] for up to so many rows at once, with two panels, with one; and one row with four panels.
template <int FORMAT> struct Tiles {
  static constexpr int MOST = FORMAT == FLOAT32 || FORMAT == BFLOAT16 ? 12 : 6;
  template <int PANELS, size_t... I> static std::array<Tile, MOST> table(std::index_sequence<I...>) { return {tile<FORMAT, I + 1, PANELS>...}; }
  std::array<Tile, MOST> two = table<2>(std::make_index_sequence<MOST>()), one = table<1>(std::make_index_sequence<MOST>());
};

template <int FORMAT>
void multiply_as(const Weight& w, const Activations& from, long first, int rows, int padded, int offset, int panel, int last, Target to) {
  static const Tiles<FORMAT> tiles;
  const int batches = (rows + tiles.MOST - 1) / tiles.MOST;
  while (panel < last) {
    const int panels = rows == 1 && last - panel >= 4 ? 4 : last - panel >= 2 ? 2 : 1;
    for (int b = 0; b < batches; b++) {
      const int begin = rows * b / batches, count = rows * (b + 1) / batches - begin;
      Tile chosen = panels == 4 ? tile<FORMAT, 1, 4> : panels == 2 ? tiles.two[count - 1] : tiles.one[count - 1];
      chosen(w, from, first + begin, padded, offset, panel, {to.rows + begin * to.stride, to.stride, to.add});
    }
    panel += panels;
  }
}

}  // namespace

void multiply(const Weight& w, const Activations& from, long first, int rows, int padded, int offset, int panel, int last, Target to) {
  switch (w.format) {
    case FLOAT32: return multiply_as<FLOAT32>(w, from, first, rows, padded, offset, panel, last, to);
    case BFLOAT16: return multiply_as<BFLOAT16>(w, from, first, rows, padded, offset, panel, last, to);
    case INT8: return multiply_as<INT8>(w, from, first, rows, padded, offset, panel, last, to);
    case INT4: return multiply_as<INT4>(w, from, first, rows, padded, offset, panel, last, to);
  }
}

void Activations::reserve(long rows, int width) {
  const size_t bytes = (size_t)rows * width * sizeof(float);
  if (memory.size > bytes) return;
  memory.take(bytes);
  scale.assign(rows * width / GROUP, 0);
  sum.assign(rows * width / GROUP, 0);
}

void pack_row(Activations& to, Format format, long start, int padded, const float* from, int width) {
  alignas(64) float group[GROUP];
  for (int k = 0; k < padded; k += GROUP) {
    const int count = std::clamp(width - k, 0, GROUP);
    std::memcpy(group, from + k, count * sizeof(float));
    std::fill(group + count, group + GROUP, 0.0f);
    f32x16 low = load<f32x16>(group), high = load<f32x16>(group + LANES);
    const long place = start + k;
    if (format == FLOAT32) {
      Float32::write((float*)to.memory.data + place, low), Float32::write((float*)to.memory.data + place + LANES, high);
    } else if (format == BFLOAT16) {
      BFloat16::write((uint16_t*)to.memory.data + place, low), BFloat16::write((uint16_t*)to.memory.data + place + LANES, high);
    } else {
      const float peak = largest(greater(magnitude(low), magnitude(high)));
      const f32x16 inverse = splat(peak > 0 ? 127.0f / peak : 0.0f);
      const i32x16 a = __builtin_convertvector(nearest(low * inverse), i32x16), b = __builtin_convertvector(nearest(high * inverse), i32x16);
      store(to.memory.data + place, __builtin_convertvector(a, i8x16)), store(to.memory.data + place + LANES, __builtin_convertvector(b, i8x16));
      int32_t total = 0;
      for (int i = 0; i < LANES; i++) total += a[i] + b[i];
      to.scale[place / GROUP] = peak / 127.0f, to.sum[place / GROUP] = total;
    }
  }
}

namespace {

// The number as bfloat16 holds it: codes are made for the scale that will be read back.
float put_bf16(char* to, int lane, float value) {
  const uint16_t bits = to_bf16(splat(value))[0];
  std::memcpy(to + 2 * lane, &bits, 2);
  return from_bf16(u16x16{} + bits)[0];
}

void pack_int8(char* group, char* scales, int lane, const float* values) {
  float peak = 0;
  for (int k = 0; k < GROUP; k++) peak = std::max(peak, std::fabs(values[k]));
  const float scale = put_bf16(scales, lane, peak / 127.0f), inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int k = 0; k < GROUP; k++) {
    const int code = std::clamp((int)std::lrint(values[k] * inverse), -127, 127);
    group[k / 4 * 64 + lane * 4 + k % 4] = (char)(128 + code);
  }
}

void pack_int4(char* group, char* scales, int lane, const float* values) {
  const auto [low, high] = std::minmax_element(values, values + GROUP);
  const float minimum = put_bf16(scales + 32, lane, *low), scale = put_bf16(scales, lane, (*high - minimum) / 15.0f);
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int k = 0; k < GROUP; k++) {
    const int code = std::clamp((int)std::lrint((values[k] - minimum) * inverse), 0, 15);
    char& pair = group[k / 8 * 64 + lane * 4 + k % 4];
    pair = (char)(k / 4 % 2 ? (pair & 15) | code << 4 : (pair & 0xf0) | code);
  }
}

// Writes one row of a matrix into its lane of a panel; `put` turns sixteen floats into the stored form.
template <int STEP, class V, class Put> void scatter(V* panel, int lane, const float* row, int padded, Put put) {
  V values[LANES];
  for (int k = 0; k < padded; k += LANES) {
    put(values, load<f32x16>(row + k));
    for (int i = 0; i < LANES; i += STEP) std::memcpy(panel + (long)(k + i) * LANES + lane * STEP, values + i, STEP * sizeof(V));
  }
}

template <class T, class Pack> void pack_groups(char* panel, int lane, const std::vector<float>& row, Pack pack) {
  const size_t groups = row.size() / GROUP;
  for (size_t g = 0; g < groups; g++) pack(panel + g * T::CODES, panel + groups * T::CODES + g * T::SCALES, lane, &row[g * GROUP]);
}

}  // namespace

void shape_weight(Weight& w) {
  w.panels = (w.outputs + LANES - 1) / LANES, w.padded_inputs = (w.inputs + GROUP - 1) / GROUP * GROUP;
  const size_t groups = w.padded_inputs / GROUP, values = (size_t)LANES * w.padded_inputs;
  const size_t integers = groups * (w.format == INT8 ? Int8::CODES + Int8::SCALES : Int4::CODES + Int4::SCALES);
  w.panel_bytes = w.format == FLOAT32 ? 4 * values : w.format == BFLOAT16 ? 2 * values : (integers + 63) / 64 * 64;
  w.memory.take(w.panels * w.panel_bytes);
}

void pack_weight(Weight& w, const float* source, int first, int last) {
  std::vector<float> row(w.padded_inputs, 0);
  for (int n = first * LANES; n < std::min(last * LANES, w.outputs); n++) {
    std::copy_n(source + (size_t)n * w.inputs, w.inputs, row.begin());
    char* panel = w.memory.data + n / LANES * w.panel_bytes;
    const int lane = n % LANES;
    if (w.format == FLOAT32) scatter<1>((float*)panel, lane, row.data(), w.padded_inputs, Float32::write);
    if (w.format == BFLOAT16) scatter<2>((uint16_t*)panel, lane, row.data(), w.padded_inputs, BFloat16::write);
    if (w.format == INT8) pack_groups<Int8>(panel, lane, row, pack_int8);
    if (w.format == INT4) pack_groups<Int4>(panel, lane, row, pack_int4);
  }
}

}  // namespace spoutnik

// Weights and activations into the layouts of linear.h.
#include <algorithm>

#include "linear.h"

namespace spoutnik {
namespace {

constexpr float LARGEST = 127 * 256;  // of a 15-bit activation: its high byte stays within 127

// Sixteen values as bytes, added up lane by lane on the way.
void split(char* high, char* low, const float* from, float inverse, i32x16& whole_sum, i32x16& high_sum) {
  const i32x16 whole = __builtin_convertvector(nearest(load<f32x16>(from) * inverse), i32x16), upper = (whole + 128) >> 8;
  store(high, __builtin_convertvector(upper, i8x16)), store(low, __builtin_convertvector(whole - (upper << 8), i8x16));
  whole_sum += whole, high_sum += upper;
}

int32_t total(i32x16 v) {
  int32_t sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}

void pack_integers(Activations& to, const Layout& in, Format format, long row, int segment, const float* from) {
  f32x16 peaks = {};
  for (int k = 0; k < in.padded; k += LANES) peaks = greater(peaks, magnitude(load<f32x16>(from + k)));
  const float peak = largest(peaks), inverse = peak > 0 ? LARGEST / peak : 0;
  const long place = row * in.segments + segment;
  char *high = to.memory.data + 2 * row * in.stride + segment * in.padded, *low = high + in.stride;
  to.scale[place] = peak / LARGEST;
  i32x16 wholes = {}, uppers = {};
  if (format == INT8) {
    for (int k = 0; k < in.padded; k += LANES) split(high + k, low + k, from + k, inverse, wholes, uppers);
    to.sum[2 * place] = total(uppers), to.sum[2 * place + 1] = total(wholes) - 256 * total(uppers);
    return;
  }
  int32_t* sums = &to.sum[row * (in.stride / GROUP) + segment * in.padded / GROUP];
  for (int k = 0; k < in.padded; k += GROUP, wholes = i32x16{}) {
    for (int i = k; i < k + GROUP; i += LANES) split(high + i, low + i, from + i, inverse, wholes, uppers);
    *sums++ = total(wholes);
  }
}

void pack_int8(char* panel, int lane, const std::vector<float>& row) {
  float peak = 0;
  for (float value : row) peak = std::max(peak, std::fabs(value));
  const float inverse = peak > 0 ? 127 / peak : 0;
  for (size_t k = 0; k < row.size(); k++) panel[k / 4 * 64 + lane * 4 + k % 4] = (char)std::lrint(row[k] * inverse);
  ((float*)(panel + row.size() * LANES))[lane] = peak / 127;
}

void pack_int4(char* group, int lane, const float* values) {
  const auto [low, high] = std::minmax_element(values, values + GROUP);
  auto put = [&](int place, float value) {  // codes are made for the half that will be read back
    const uint16_t half = to_half(value);
    std::memcpy(group + INT4_CODES + place + 2 * lane, &half, 2);
    return from_half(u16x16{} + half)[0];
  };
  const float minimum = put(32, *low), scale = put(0, (*high - minimum) / 15), inverse = scale > 0 ? 1 / scale : 0;
  for (int k = 0; k < GROUP; k++) {
    const int code = std::clamp((int)std::lrint((values[k] - minimum) * inverse), 0, 15);
    char& pair = group[k / 8 * 64 + lane * 4 + k % 4];
    pair = (char)(k / 4 % 2 ? (pair & 15) | code << 4 : (pair & 0xf0) | code);
  }
}

// Writes one row of a matrix into its lane of a panel.
template <class T> void scatter(char* panel, int lane, const std::vector<float>& row) {
  typename T::value values[LANES];
  for (size_t k = 0; k < row.size(); k += LANES) {
    T::write(values, load<f32x16>(&row[k]));
    for (int i = 0; i < LANES; i += T::step)
      std::memcpy((typename T::value*)panel + (k + i) * LANES + lane * T::step, values + i, T::step * sizeof(values[0]));
  }
}

}  // namespace

void Activations::reserve(long rows, int width) {
  const size_t values = (size_t)(rows + LANES) * (width + DEPTH);  // a tile reads 16 rows whatever their number
  memory.take(values * sizeof(float));
  scale.assign(values / DEPTH, 0), sum.assign(std::max(values / GROUP, 2 * scale.size()), 0);
}

Layout::Layout(int segments, int width) : segments(segments), padded((width + DEPTH - 1) / DEPTH * DEPTH), stride(segments * padded) {
  if (stride % 1024 == 0) stride += DEPTH;  // rows a power of two apart would share few lines of the cache
}

void pack_row(Activations& to, const Layout& in, Format format, long row, int segment, const float* from, int width) {
  alignas(64) float padded[DEPTH];
  const bool integers = format == INT8 || format == INT4;
  if (integers && width == in.padded) return pack_integers(to, in, format, row, segment, from);
  if (integers) {
    std::vector<float> whole(from, from + width);
    whole.resize(in.padded, 0);
    return pack_integers(to, in, format, row, segment, whole.data());
  }
  const long place = row * in.stride + segment * in.padded;
  for (int k = 0; k < in.padded; k += LANES) {
    const float* sixteen = from + k;
    if (width - k < LANES) {
      std::fill_n(padded, LANES, 0.0f);
      std::copy_n(from + std::min(k, width), std::clamp(width - k, 0, LANES), padded), sixteen = padded;
    }
    if (format == FLOAT32) Float32::write((float*)to.memory.data + place + k, load<f32x16>(sixteen));
    else BFloat16::write((uint16_t*)to.memory.data + place + k, load<f32x16>(sixteen));
  }
}

void shape_weight(Weight& w, Arena& arena) {
  w.panels = (w.outputs + LANES - 1) / LANES, w.padded_inputs = (w.inputs + DEPTH - 1) / DEPTH * DEPTH;
  const size_t values = (size_t)LANES * w.padded_inputs;
  switch (w.format) {
    case FLOAT32: w.panel_bytes = 4 * values; break;
    case BFLOAT16: w.panel_bytes = 2 * values; break;
    case INT8: w.panel_bytes = values + LANES * sizeof(float); break;
    case INT4: w.panel_bytes = values / (GROUP * LANES) * INT4_GROUP; break;
  }
  w.data = arena.take(w.panels * w.panel_bytes);
}

void pack_weight(Weight& w, Matrix source, int first, int last) {
  std::vector<float> row(w.padded_inputs, 0);
  for (int n = first * LANES; n < std::min(last * LANES, w.outputs); n++) {
    if (source.bf16) floats((const uint16_t*)source.data + (size_t)n * w.inputs, w.inputs, row.data());
    else std::copy_n((const float*)source.data + (size_t)n * w.inputs, w.inputs, row.begin());
    char* panel = w.data + n / LANES * w.panel_bytes;
    const int lane = n % LANES;
    switch (w.format) {
      case FLOAT32: scatter<Float32>(panel, lane, row); break;
      case BFLOAT16: scatter<BFloat16>(panel, lane, row); break;
      case INT8: pack_int8(panel, lane, row); break;
      case INT4:
        for (int g = 0; g < w.padded_inputs / GROUP; g++) pack_int4(panel + g * INT4_GROUP, lane, &row[g * GROUP]);
    }
  }
}

}  // namespace spoutnik

#include "attention.h"

#include <algorithm>

namespace spoutnik {
namespace {

constexpr int MOST_ROWS = 6;  // of scores or outputs that are kept in registers together

template <class T> using Value = typename T::value;

template <class T> inline const Value<T>* keys_of(const Cache& cache, const Chunk& chunk, int layer, int head, int page) {
  return (const Value<T>*)cache.at(chunk.pages[page], layer, head);
}

// Scores of ROWS queries against the two panels of a page.
template <class T, int ROWS> void score(const Cache& cache, const Value<T>* keys, const Value<T>* query, float* scores, long stride) {
  f32x16 sums[ROWS][2] = {};
  for (int c = 0; c < cache.key; c += T::step) {
    auto low = T::read(keys + (long)c * LANES), high = T::read(keys + (long)(cache.key + c) * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      auto q = T::repeat(query + (long)r * cache.key + c);
      sums[r][0] = T::dot(sums[r][0], low, q), sums[r][1] = T::dot(sums[r][1], high, q);
    }
  }
  for (int r = 0; r < ROWS; r++) store(scores + r * stride, sums[r][0]), store(scores + r * stride + LANES, sums[r][1]);
}

// Weighted values of ROWS queries in PANELS * 16 channels, over all pages.
template <class T, int ROWS, int PANELS>
void blend(const Cache& cache, const Chunk& chunk, int layer, int head, int pages, const Value<T>* weights, int channel, f32x16 (*sums)[4]) {
  f32x16 kept[ROWS][PANELS] = {};
  const long stride = (long)pages * PAGE;
  for (int page = 0; page < pages; page++) {
    const Value<T>* values = keys_of<T>(cache, chunk, layer, head, page) + (long)PAGE * cache.key + (long)PAGE * channel;
    for (int t = 0; t < PAGE; t += T::step) {
      typename T::lanes v[PANELS];
      for (int p = 0; p < PANELS; p++) v[p] = T::read(values + (long)p * PAGE * LANES + t * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        auto w = T::repeat(weights + r * stride + page * PAGE + t);
        for (int p = 0; p < PANELS; p++) kept[r][p] = T::dot(kept[r][p], v[p], w);
      }
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < PANELS; p++) sums[r][p] = kept[r][p];
}

// exp(scale * (score - highest)) of keys [from, until), 0 elsewhere, as weights; returns one over their sum. Two passes over the whole
// row, so that neither chunks nor pages change a bit.
template <class T> float soften(const float* scores, int from, int until, int padded, float scale, Value<T>* weights) {
  const f32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  auto inside = [&](int t) { return (lane >= splat(float(from - t))) & (lane < splat(float(until - t))); };
  f32x16 highest = splat(-INFINITY);
  for (int t = from / LANES * LANES; t < until; t += LANES) highest = greater(highest, inside(t) ? load<f32x16>(scores + t) : splat(-INFINITY));
  const f32x16 peak = splat(largest(highest));
  f32x16 total = {};
  for (int t = 0; t < padded; t += LANES) {
    f32x16 weight = {};
    if (t < until && t + LANES > from) {
      weight = inside(t) ? exponential((load<f32x16>(scores + t) - peak) * scale) : f32x16{};
      total = total + weight;
    }
    T::write(weights + t, weight);
  }
  return 1.0f / sum(total);
}

template <class T, int ROWS>
void attend_rows(const Cache& cache, const Attention& a, const Chunk& chunk, int head, int first, const Value<T>* query, float* scratch) {
  const int group = a.query_heads / cache.heads, last_token = (first + ROWS - 1) / group;
  const int pages = (chunk.position + last_token) / PAGE + 1, padded = pages * PAGE;
  float* scores = scratch;
  Value<T>* weights = (Value<T>*)(scratch + (long)MOST_ROWS * padded);
  // Pages that a window hides from every row are skipped whole; what they would give is exactly 0.
  const int first_page = a.window ? std::max(0, chunk.position + first / group - a.window + 1) / PAGE : 0;
  for (int page = first_page; page < pages; page++)
    score<T, ROWS>(cache, keys_of<T>(cache, chunk, a.layer, head, page), query + (long)first * cache.key, scores + page * PAGE, padded);
  float inverse[ROWS];
  for (int r = 0; r < ROWS; r++) {
    const int until = chunk.position + (first + r) / group + 1, from = a.window ? std::max(0, until - a.window) : 0;
    inverse[r] = soften<T>(scores + (long)r * padded, from, until, padded, a.scale, weights + (long)r * padded);
  }
  for (int channel = 0; channel < cache.value;) {
    const int panels = cache.panels() * LANES - channel >= 4 * LANES ? 4 : 1;
    f32x16 sums[ROWS][4];
    if (panels == 4) blend<T, ROWS, 4>(cache, chunk, a.layer, head, pages, weights, channel, sums);
    else blend<T, ROWS, 1>(cache, chunk, a.layer, head, pages, weights, channel, sums);
    for (int r = 0; r < ROWS; r++) {
      float* out = a.out + (chunk.first_row + (first + r) / group) * a.out_stride + (head * group + (first + r) % group) * cache.value + channel;
      for (int p = 0; p < panels; p++) {
        const f32x16 value = sums[r][p] * inverse[r];
        std::memcpy(out + p * LANES, &value, std::min(LANES, cache.value - channel - p * LANES) * sizeof(float));
      }
    }
    channel += panels * LANES;
  }
}

template <class T> void attend_as(const Cache& cache, const Attention& a, const Chunk& chunk, int head, float* scratch) {
  const int group = a.query_heads / cache.heads, rows = chunk.rows * group;
  Value<T>* query = (Value<T>*)scratch;
  for (int r = 0; r < rows; r++) {
    const float* from = a.query + (chunk.first_row + r / group) * a.query_stride + (long)(head * group + r % group) * cache.key;
    for (int c = 0; c < cache.key; c += LANES) {  // the last store may pass the row's end: rows are written in order
      f32x16 value = {};
      std::memcpy(&value, from + c, std::min(LANES, cache.key - c) * sizeof(float));
      T::write(query + (long)r * cache.key + c, value);
    }
  }
  float* rest = scratch + (((long)rows * cache.key + LANES) * sizeof(Value<T>) / sizeof(float) / LANES + 1) * LANES;
  static constexpr decltype(&attend_rows<T, 1>) by_rows[] = {attend_rows<T, 1>, attend_rows<T, 2>, attend_rows<T, 3>,
                                                           attend_rows<T, 4>, attend_rows<T, 5>, attend_rows<T, 6>};
  for (int first = 0; first < rows; first += MOST_ROWS) by_rows[std::min(MOST_ROWS, rows - first) - 1](cache, a, chunk, head, first, query, rest);
}

template <class T>
void remember_as(const Cache& cache, const Chunk& chunk, int row, int layer, const float* key, long key_stride, const float* value, long value_stride) {
  const int position = chunk.position + row, place = position % PAGE;
  for (int head = 0; head < cache.heads; head++, key += key_stride, value += value_stride) {
    Value<T>* keys = (Value<T>*)cache.at(chunk.pages[position / PAGE], layer, head);
    Value<T>* values = keys + (long)PAGE * cache.key;
    Value<T> packed[LANES];
    auto round = [&](const float* from, int count) {
      f32x16 lanes = {};
      std::memcpy(&lanes, from, count * sizeof(float));
      T::write(packed, lanes);
    };
    keys += (long)(place / LANES) * cache.key * LANES + place % LANES * T::step;
    for (int c = 0; c < cache.key; c += LANES) {
      const int count = std::min(LANES, cache.key - c);
      round(key + c, count);
      for (int i = 0; i < count; i += T::step) std::memcpy(keys + (long)(c + i) * LANES, packed + i, T::step * sizeof(Value<T>));
    }
    for (int c = 0; c < cache.value; c += LANES) {
      round(value + c, std::min(LANES, cache.value - c));
      Value<T>* to = values + (long)c * PAGE + place / T::step * LANES * T::step + place % T::step;
      for (int i = 0; i < LANES; i++) to[i * T::step] = packed[i];
    }
  }
}

}  // namespace

size_t scratch_floats(const Cache& cache, int query_heads, int chunk_rows, int most_tokens) {
  const size_t padded = (size_t)(most_tokens / PAGE + 1) * PAGE;
  return (size_t)query_heads / cache.heads * chunk_rows * cache.key + 4 * LANES + 2 * MOST_ROWS * padded;
}

void remember(const Cache& cache, const Chunk& chunk, int row, int layer, const float* key, long key_stride, const float* value, long value_stride) {
  if (cache.bf16) remember_as<BFloat16>(cache, chunk, row, layer, key, key_stride, value, value_stride);
  else remember_as<Float32>(cache, chunk, row, layer, key, key_stride, value, value_stride);
}

void attend(const Cache& cache, const Attention& attention, const Chunk& chunk, int head, float* scratch) {
  if (cache.bf16) attend_as<BFloat16>(cache, attention, chunk, head, scratch);
  else attend_as<Float32>(cache, attention, chunk, head, scratch);
}

}  // namespace spoutnik

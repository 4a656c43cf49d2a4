#include "attention.h"

#include <algorithm>

#include "tiles.h"

namespace spoutnik {
namespace {

constexpr int VECTOR_ROWS = 6;               // of scores or outputs that are kept in vector registers together
constexpr int MOST_ROWS = 2 * TILE_ROWS;     // in tile registers
constexpr int PANELS = PAGE / LANES;         // of keys a page
constexpr int SKEW = 32;                     // between rows of scores or weights: rows a power of two apart would share few lines of the cache

template <class T> using Value = typename T::value;

// One key head's queries of one chunk: row r is query head r % group of token r / group. Scores and weights of up to MOST_ROWS rows.
template <class T> struct Work {
  const Cache& cache;
  const Attention& a;
  const Chunk& chunk;
  int head, group;
  Value<T>* query;  // [rows, keys]
  float* scores;
  Value<T>* weights;

  Work(const Cache& cache, const Attention& a, const Chunk& chunk, int head, float* scratch)
      : cache(cache), a(a), chunk(chunk), head(head), group(a.query_heads / cache.heads), query((Value<T>*)scratch) {
    scores = scratch + (long)(chunk.rows * group + TILE_ROWS) * cache.keys();
  }
  int until(int row) const { return chunk.position + row / group + 1; }
  int from(int row) const { return a.window ? std::max(a.passed, until(row) - a.window) : a.passed; }
  const Value<T>* keys(int page) const { return (const Value<T>*)cache.at(chunk.pages[page], a.layer, head); }
  const Value<T>* values(int page) const { return keys(page) + (long)PAGE * cache.keys(); }
  float* out(int row, int channel) const {
    return a.out + (chunk.first_row + row / group) * a.out_stride + (long)(head * group + row % group) * cache.value + channel;
  }
  void put(int row, int channel, f32x16 value) const {
    if (channel + LANES <= cache.value) store(out(row, channel), value);
    else std::memcpy(out(row, channel), &value, (cache.value - channel) * sizeof(float));
  }
};

// Fetches the pages of one key head line by line, as other work leaves time for it.
class Ahead {
 public:
  Ahead(const Cache& cache, const Chunk* chunk, int layer, int head, int first_page = 0)
      : cache_(cache), chunk_(chunk), layer_(layer), head_(head), page_(first_page) {
    pages_ = chunk ? (chunk->position + chunk->rows - 1) / PAGE + 1 : first_page;
  }
  int lines() const { return (pages_ - page_) * int(cache_.head_bytes() / 64); }
  void fetch(int count) {
    while (count > 0 && page_ < pages_) {
      if (line_ == end_) line_ = cache_.at(chunk_->pages[page_], layer_, head_), end_ = line_ + cache_.head_bytes();
      for (; count > 0 && line_ < end_; count--, line_ += 64) __builtin_prefetch(line_, 0, 2);
      if (line_ >= end_) line_ = end_ = nullptr, page_++;
    }
  }

 private:
  const Cache& cache_;
  const Chunk* chunk_;
  int layer_, head_, pages_, page_;
  const char *line_ = nullptr, *end_ = nullptr;
};

template <class T> void gather_queries(const Work<T>& w) {
  for (int r = 0; r < w.chunk.rows * w.group; r++) {
    const float* from = w.a.query + (w.chunk.first_row + r / w.group) * w.a.query_stride + (long)(w.head * w.group + r % w.group) * w.cache.key;
    Value<T>* to = w.query + (long)r * w.cache.keys();
    for (int c = 0; c < w.cache.keys(); c += LANES) {  // the last store may pass the row's end: rows are written in order
      f32x16 value = {};
      if (c + LANES <= w.cache.key) value = load<f32x16>(from + c);
      else if (c < w.cache.key) std::memcpy(&value, from + c, (w.cache.key - c) * sizeof(float));
      T::write(to + c, value);
    }
  }
}

// exp(scale * (score - highest)) of keys [from, until), 0 elsewhere, as weights; returns one over their sum. Two passes over the whole
// row, so that neither chunks nor pages change a bit. Scores beside those keys are lost.
template <class T> float soften(float* scores, int from, int until, int padded, float scale, Value<T>* weights) {
  const f32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const int begin = from / LANES * LANES, end = (until + LANES - 1) / LANES * LANES;
  auto hide = [&](int t) {
    const auto inside = (lane >= splat(float(from - t))) & (lane < splat(float(until - t)));
    store(scores + t, inside ? load<f32x16>(scores + t) : splat(-INFINITY));
  };
  hide(begin), hide(end - LANES);
  f32x16 highest = splat(-INFINITY), total = {};
  for (int t = begin; t < end; t += LANES) highest = greater(highest, load<f32x16>(scores + t));
  const f32x16 peak = splat(largest(highest));
  for (int t = 0; t < begin; t += LANES) T::write(weights + t, f32x16{});
  for (int t = begin; t < end; t += LANES) {
    const f32x16 weight = T::exponential((load<f32x16>(scores + t) - peak) * scale);
    total = total + weight;
    T::write(weights + t, weight);
  }
  for (int t = end; t < padded; t += LANES) T::write(weights + t, f32x16{});
  return 1.0f / sum(total);
}

// ---- vectors
template <class T, int ROWS> void score(const Work<T>& w, int page, const Value<T>* query, float* scores, long stride) {
  f32x16 sums[ROWS][PANELS] = {};
  const Value<T>* keys = w.keys(page);
  const int channels = w.cache.keys();
  for (int c = 0; c < channels; c += T::step) {
    auto low = T::read(keys + (long)c * LANES), high = T::read(keys + (long)(channels + c) * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      auto q = T::repeat(query + (long)r * channels + c);
      sums[r][0] = T::dot(sums[r][0], low, q), sums[r][1] = T::dot(sums[r][1], high, q);
    }
  }
  for (int r = 0; r < ROWS; r++) store(scores + r * stride, sums[r][0]), store(scores + r * stride + LANES, sums[r][1]);
}

// Weighted values of ROWS queries in COUNT * 16 channels, over all pages.
template <class T, int ROWS, int COUNT> void blend(const Work<T>& w, int first_page, int pages, int channel, f32x16 (*sums)[4]) {
  f32x16 kept[ROWS][COUNT] = {};
  const long stride = (long)pages * PAGE;
  for (int page = first_page; page < pages; page++) {
    const Value<T>* values = w.values(page) + (long)PAGE * channel;
    for (int t = 0; t < PAGE; t += T::step) {
      typename T::lanes v[COUNT];
      for (int p = 0; p < COUNT; p++) v[p] = T::read(values + (long)p * PAGE * LANES + t * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        auto weight = T::repeat(w.weights + r * stride + page * PAGE + t);
        for (int p = 0; p < COUNT; p++) kept[r][p] = T::dot(kept[r][p], v[p], weight);
      }
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < COUNT; p++) sums[r][p] = kept[r][p];
}

template <class T, int ROWS> void attend_vectors(const Work<T>& w, int first, int first_page, int pages) {
  const long padded = (long)pages * PAGE;
  float inverse[ROWS];
  for (int page = first_page; page < pages; page++) score<T, ROWS>(w, page, w.query + (long)first * w.cache.keys(), w.scores + page * PAGE, padded);
  for (int r = 0; r < ROWS; r++)
    inverse[r] = soften<T>(w.scores + r * padded, w.from(first + r), w.until(first + r), padded, w.a.scale, w.weights + r * padded);
  for (int channel = 0; channel < w.cache.value;) {
    const int panels = w.cache.panels() * LANES - channel >= 4 * LANES ? 4 : 1;
    f32x16 sums[ROWS][4];
    if (panels == 4) blend<T, ROWS, 4>(w, first_page, pages, channel, sums);
    else blend<T, ROWS, 1>(w, first_page, pages, channel, sums);
    for (int r = 0; r < ROWS; r++)
      for (int p = 0; p < panels; p++) w.put(first + r, channel + p * LANES, sums[r][p] * inverse[r]);
    channel += panels * LANES;
  }
}

// ---- tiles
#if defined(SPOUTNIK_TILES)
// Scores of 16 rows (32 if BOTH) against the two panels of a page.
template <bool BOTH> void score_tiles(const Work<BFloat16>& w, int page, const uint16_t* query, float* scores, long stride) {
  const int channels = w.cache.keys();
  const uint16_t* keys = w.keys(page);
  _tile_zero(0); _tile_zero(1);
  if constexpr (BOTH) { _tile_zero(2); _tile_zero(3); }
  for (int c = 0; c < channels; c += 32) {
    _tile_loadd(4, query + c, channels * 2);
    _tile_loadd(6, keys + (long)c * LANES, 64); _tile_loadd(7, keys + (long)(channels + c) * LANES, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    if constexpr (BOTH) {
      _tile_loadd(5, query + (long)TILE_ROWS * channels + c, channels * 2);
      _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, scores, stride * 4); _tile_stored(1, scores + LANES, stride * 4);
  if constexpr (BOTH) { _tile_stored(2, scores + TILE_ROWS * stride, stride * 4); _tile_stored(3, scores + TILE_ROWS * stride + LANES, stride * 4); }
}

// Weighted values of 16 rows (32 if BOTH) in channels of one panel or two (of the last one twice), over some pages: added to `sums`,
// [32][32] floats. Where one call ends the next may go on, to the same bits.
template <bool BOTH> void blend_tiles(const Work<BFloat16>& w, int first_page, int pages, int channel, int next, long stride, float* sums) {
  _tile_loadd(0, sums, 128); _tile_loadd(1, sums + LANES, 128);
  if constexpr (BOTH) { _tile_loadd(2, sums + TILE_ROWS * 32, 128); _tile_loadd(3, sums + TILE_ROWS * 32 + LANES, 128); }
  for (int page = first_page; page < pages; page++) {
    const uint16_t* values = w.values(page);
    _tile_loadd(4, w.weights + page * PAGE, stride * 2);
    _tile_loadd(6, values + (long)PAGE * channel, 64); _tile_loadd(7, values + (long)PAGE * next, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    if constexpr (BOTH) {
      _tile_loadd(5, w.weights + TILE_ROWS * stride + page * PAGE, stride * 2);
      _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, 128); _tile_stored(1, sums + LANES, 128);
  if constexpr (BOTH) { _tile_stored(2, sums + TILE_ROWS * 32, 128); _tile_stored(3, sums + TILE_ROWS * 32 + LANES, 128); }
}

void attend_tiles(const Work<BFloat16>& w, int first, int rows, int first_page, int pages, Ahead& ahead) {
  const long padded = (long)pages * PAGE, stride = padded + SKEW;
  const bool both = rows > TILE_ROWS;
  const uint16_t* query = w.query + (long)first * w.cache.keys();
  const int lines = ahead.lines() / (2 * (pages - first_page)) + 1;
  for (int page = first_page; page < pages; page++) {
    both ? score_tiles<true>(w, page, query, w.scores + page * PAGE, stride) : score_tiles<false>(w, page, query, w.scores + page * PAGE, stride);
    ahead.fetch(lines);
  }
  float inverse[MOST_ROWS];
  for (int r = 0; r < rows; r++, ahead.fetch(lines))
    inverse[r] = soften<BFloat16>(w.scores + r * stride, w.from(first + r), w.until(first + r), padded, w.a.scale, w.weights + r * stride);
  alignas(64) float sums[MOST_ROWS * 32];
  for (int channel = 0; channel < w.cache.panels() * LANES; channel += 2 * LANES) {
    const int next = std::min(channel + LANES, (w.cache.panels() - 1) * LANES);
    std::fill_n(sums, (both ? MOST_ROWS : TILE_ROWS) * 32, 0.0f);
    both ? blend_tiles<true>(w, first_page, pages, channel, next, stride, sums) : blend_tiles<false>(w, first_page, pages, channel, next, stride, sums);
    for (int r = 0; r < rows; r++) {
      w.put(first + r, channel, load<f32x16>(sums + r * 32) * inverse[r]);
      if (next > channel) w.put(first + r, next, load<f32x16>(sums + r * 32 + LANES) * inverse[r]);
    }
  }
}

#endif

template <class T> void attend_as(const Cache& cache, const Attention& a, const Chunk& chunk, int head, Ahead& ahead, float* scratch) {
  Work<T> w(cache, a, chunk, head, scratch);
  gather_queries(w);
  bool on_tiles = false;
  if constexpr (T::step == 2) on_tiles = tiles_granted();
  const int rows = chunk.rows * w.group, most = on_tiles ? MOST_ROWS : VECTOR_ROWS;
  static constexpr decltype(&attend_vectors<T, 1>) by_rows[] = {attend_vectors<T, 1>, attend_vectors<T, 2>, attend_vectors<T, 3>,
                                                              attend_vectors<T, 4>, attend_vectors<T, 5>, attend_vectors<T, 6>};
  for (int first = 0; first < rows; first += most) {
    const int count = std::min(most, rows - first), pages = (w.until(first + count - 1) - 1) / PAGE + 1;
    const int first_page = w.from(first) / PAGE;  // pages that a window hides from every row would give exactly 0
    w.weights = (Value<T>*)(w.scores + (long)(on_tiles && count > TILE_ROWS ? MOST_ROWS : TILE_ROWS) * (pages * PAGE + SKEW));
#if defined(SPOUTNIK_TILES)
    if constexpr (T::step == 2) {
      if (on_tiles) {
        attend_tiles(w, first, count, first_page, pages, ahead);
        continue;
      }
    }
#endif
    by_rows[count - 1](w, first, first_page, pages);
  }
}

template <class T>
void remember_as(const Cache& cache, const Chunk& chunk, int row, int layer, const float* key, long key_stride, const float* value, long value_stride) {
  const int position = chunk.position + row, place = position % PAGE;
  for (int head = 0; head < cache.heads; head++, key += key_stride, value += value_stride) {
    Value<T>* keys = (Value<T>*)cache.at(chunk.pages[position / PAGE], layer, head);
    Value<T>* values = keys + (long)PAGE * cache.keys();
    Value<T> packed[LANES];
    auto round = [&](const float* from, int count) {
      f32x16 lanes = {};
      std::memcpy(&lanes, from, count * sizeof(float));
      T::write(packed, lanes);
    };
    keys += (long)(place / LANES) * cache.keys() * LANES + place % LANES * T::step;
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
  const size_t padded = (size_t)(most_tokens / PAGE + 1) * PAGE + SKEW, rows = (size_t)query_heads / cache.heads * chunk_rows + TILE_ROWS;
  return std::max(rows, (size_t)MOST_ROWS + TILE_ROWS) * cache.keys() + (MOST_ROWS + TILE_ROWS) * padded * 3 / 2 + LANES;
}

void remember(const Cache& cache, const Chunk& chunk, int row, int layer, const float* key, long key_stride, const float* value, long value_stride) {
  if (cache.bf16) remember_as<BFloat16>(cache, chunk, row, layer, key, key_stride, value, value_stride);
  else remember_as<Float32>(cache, chunk, row, layer, key, key_stride, value, value_stride);
}

int most_together(const Cache& cache, int query_heads) {
  const int group = query_heads / cache.heads;
  return cache.bf16 && tiles_granted() && group <= TILE_ROWS ? MOST_ROWS / group : 1;
}

#if defined(SPOUTNIK_TILES)
// What the shared pages give is worked out for all together; then each sequence goes on with its own. A tile takes 16 rows, so rows behind a
// sequence's own are written, too, before their turn.
void attend_together(const Cache& cache, const Attention& a, const Chunk* const* chunks, int count, int shared, int head, float* scratch) {
  const int group = a.query_heads / cache.heads, rows = count * group, channels = cache.keys();
  const bool both = rows > TILE_ROWS;
  int longest = 0;
  for (int i = 0; i < count; i++) longest = std::max(longest, chunks[i]->position / PAGE + 1);
  const long stride = (long)longest * PAGE + SKEW;
  uint16_t* query = (uint16_t*)scratch;
  float* scores = scratch + (long)(MOST_ROWS + TILE_ROWS) * channels;
  uint16_t* weights = (uint16_t*)(scores + (MOST_ROWS + TILE_ROWS) * stride);
  std::vector<Work<BFloat16>> work;
  for (int i = 0; i < count; i++) {
    work.emplace_back(cache, a, *chunks[i], head, scratch);
    work[i].query = query + (long)i * group * channels, work[i].scores = scores + i * group * stride, work[i].weights = weights + i * group * stride;
    gather_queries(work[i]);
  }
  auto score = [&](const Work<BFloat16>& w, int page, bool all) {
    all ? score_tiles<true>(w, page, w.query, w.scores + page * PAGE, stride) : score_tiles<false>(w, page, w.query, w.scores + page * PAGE, stride);
  };
  auto pages = [&](int i) { return chunks[i]->position / PAGE + 1; };
  for (int i = -1; i < count; i++) {  // first the shared pages; meanwhile what the next sequence has of its own is fetched
    Ahead ahead(cache, i + 1 < count ? chunks[i + 1] : nullptr, a.layer, head, shared);
    const int begin = i < 0 ? 0 : shared, end = i < 0 ? shared : pages(i), lines = ahead.lines() / std::max(1, end - begin) + 1;
    for (int page = begin; page < end; page++) score(work[std::max(i, 0)], page, i < 0 && both), ahead.fetch(lines);
  }
  float inverse[MOST_ROWS];
  for (int r = 0; r < rows; r++) {
    const Work<BFloat16>& w = work[r / group];
    inverse[r] = soften<BFloat16>(scores + r * stride, w.from(0), w.until(0), pages(r / group) * PAGE, a.scale, weights + r * stride);
  }
  alignas(64) float together[MOST_ROWS * 32 + TILE_ROWS * 32], sums[TILE_ROWS * 32];
  for (int channel = 0; channel < cache.panels() * LANES; channel += 2 * LANES) {
    const int next = std::min(channel + LANES, (cache.panels() - 1) * LANES);
    std::fill_n(together, MOST_ROWS * 32, 0.0f);
    both ? blend_tiles<true>(work[0], 0, shared, channel, next, stride, together) : blend_tiles<false>(work[0], 0, shared, channel, next, stride, together);
    for (int i = 0; i < count; i++) {
      std::copy_n(together + i * group * 32, TILE_ROWS * 32, sums);
      blend_tiles<false>(work[i], shared, pages(i), channel, next, stride, sums);
      for (int r = 0; r < group; r++) {
        work[i].put(r, channel, load<f32x16>(sums + r * 32) * inverse[i * group + r]);
        if (next > channel) work[i].put(r, next, load<f32x16>(sums + r * 32 + LANES) * inverse[i * group + r]);
      }
    }
  }
}
#else
void attend_together(const Cache&, const Attention&, const Chunk* const*, int, int, int, float*) {}
#endif

void attend(const Cache& cache, const Attention& attention, const Chunk& chunk, int head, const Chunk* next, int next_head, float* scratch) {
  Ahead ahead(cache, next && next->rows == 1 ? next : nullptr, attention.layer, next_head);  // a prompt's pages are near already
  if (cache.bf16) attend_as<BFloat16>(cache, attention, chunk, head, ahead, scratch);
  else attend_as<Float32>(cache, attention, chunk, head, ahead, scratch);
}

}  // namespace spoutnik

// Attention over a paged cache. Grouped-query attention and absorbed latent attention are the same here: latent attention has one key
// head of kv_lora_rank + rope channels, whose first kv_lora_rank channels are also the value, and every query head reads it.
#pragma once
#include "simd.h"
#include "threads.h"

namespace spoutnik {

constexpr int PAGE = SPOUTNIK_PAGE;  // tokens a page

// The cache: pages [page][layer][head] of PAGE keys [2][key/step][16][step] (16 keys a panel) and PAGE values [panels][PAGE/step][16][step]
// (16 channels a panel, the last one padded). Bfloat16 keys are padded with zeros to whole tiles of 32 channels.
struct Cache {
  bool bf16;
  int layers, heads, key, value;  // channels
  long pages;
  char* data;
  size_t element() const { return bf16 ? 2 : 4; }
  int keys() const { return bf16 ? (key + 31) / 32 * 32 : key; }
  int panels() const { return (value + LANES - 1) / LANES; }
  size_t head_bytes() const { return (size_t)PAGE * (keys() + panels() * LANES) * element(); }
  size_t page_bytes() const { return head_bytes() * heads * layers; }
  char* at(int page, int layer, int head) const { return data + page * page_bytes() + ((size_t)layer * heads + head) * head_bytes(); }
};

// Consecutive tokens of one sequence, and where its pages stand.
struct Chunk {
  int first_row, rows, position;
  const int* pages;
};

// Keys and values of one token and layer, [heads, key] and [heads, value] floats with strides, into the cache.
void remember(const Cache& cache, const Chunk& chunk, int row, int layer, const float* key, long key_stride, const float* value, long value_stride);

struct Attention {
  int layer, query_heads, window;  // window: keys seen, the own one included; 0 for all
  int passed;                      // so many keys, from position 0 on, are never seen
  float scale;
  const float* query;  // [rows, query_stride], heads of `key` channels
  long query_stride;
  float* out;  // [rows, out_stride], heads of `value` channels
  long out_stride;
};

// One key head's queries of one chunk. `scratch` is one thread's and holds scratch_floats(). `next`, if any, is the chunk that this thread
// turns to then, with its key head: what it will read is fetched meanwhile.
void attend(const Cache& cache, const Attention& attention, const Chunk& chunk, int head, const Chunk* next, int next_head, float* scratch);

// The same of several single tokens whose sequences begin with the same `shared` pages, which are read once; at most most_together() of them,
// and without a window. The bits are those of each alone.
void attend_together(const Cache& cache, const Attention& attention, const Chunk* const* chunks, int count, int shared, int head, float* scratch);
int most_together(const Cache& cache, int query_heads);

size_t scratch_floats(const Cache& cache, int query_heads, int chunk_rows, int most_tokens);

}  // namespace spoutnik

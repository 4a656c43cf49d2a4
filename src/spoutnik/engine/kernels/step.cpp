#include "step.h"

#include <algorithm>
#include <numeric>
#include <sys/mman.h>

#include "tiles.h"

namespace spoutnik {
namespace {

void norm(const float* from, int width, const float* weight, float epsilon, float* to) {
  f32x16 squares = {};
  int k = 0;
  for (; k + LANES <= width; k += LANES) {
    f32x16 v = load<f32x16>(from + k);
    squares = fma(v, v, squares);
  }
  float total = sum(squares);
  for (int i = k; i < width; i++) total += from[i] * from[i];
  const float factor = 1.0f / std::sqrt(total / width + epsilon);
  for (k = 0; k + LANES <= width; k += LANES) store(to + k, load<f32x16>(from + k) * factor * load<f32x16>(weight + k));
  for (; k < width; k++) to[k] = from[k] * factor * weight[k];
}

// Pairs are halves of the head (Llama) or neighbours (DeepSeek). `table` holds width / 2 cosines, then as many sines. A head may be turned in place.
void rotate(const float* from, int width, const float* table, bool neighbours, float* to) {
  const int half = width / 2;
  const float *cosine = table, *sine = table + half;
  int i = 0;
  for (; !neighbours && i + LANES <= half; i += LANES) {
    const f32x16 a = load<f32x16>(from + i), b = load<f32x16>(from + half + i), c = load<f32x16>(cosine + i), s = load<f32x16>(sine + i);
    store(to + i, a * c - b * s), store(to + half + i, b * c + a * s);
  }
  for (; i < half; i++) {
    const int first = neighbours ? 2 * i : i, second = neighbours ? 2 * i + 1 : i + half;
    const float a = from[first], b = from[second];
    to[first] = a * cosine[i] - b * sine[i], to[second] = b * cosine[i] + a * sine[i];
  }
}

// Experts and weights of one token from its router logits: sigmoid scores with a selection-only bias and groups (V3), or softmax (V2).
void choose(const Router& router, const float* logits, const float* bias, int* experts, float* shares) {
  const int count = router.experts, in_group = count / router.groups;
  std::vector<float> score(count), wanted(count);
  const float peak = *std::max_element(logits, logits + count);
  float total = 0;
  for (int e = 0; e < count; e++) {
    score[e] = router.sigmoid ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e] - peak);
    total += score[e];
  }
  for (int e = 0; e < count; e++) {
    if (!router.sigmoid) score[e] /= total;
    wanted[e] = score[e] + (bias ? bias[e] : 0);
  }
  if (router.open_groups < router.groups) {
    std::vector<float> merit(router.groups), order(in_group);
    for (int g = 0; g < router.groups; g++) {
      std::partial_sort_copy(&wanted[g * in_group], &wanted[(g + 1) * in_group], order.begin(), order.begin() + router.best, std::greater<float>());
      merit[g] = std::accumulate(order.begin(), order.begin() + router.best, 0.0f);
    }
    std::vector<int> groups(router.groups);
    std::iota(groups.begin(), groups.end(), 0);
    std::stable_sort(groups.begin(), groups.end(), [&](int a, int b) { return merit[a] > merit[b]; });
    for (int g = router.open_groups; g < router.groups; g++) std::fill_n(&wanted[groups[g] * in_group], in_group, -INFINITY);
  }
  total = 0;
  for (int k = 0; k < router.top_k; k++) {
    const int best = int(std::max_element(wanted.begin(), wanted.end()) - wanted.begin());
    experts[k] = best, shares[k] = score[best], total += score[best], wanted[best] = -INFINITY;
  }
  for (int k = 0; k < router.top_k; k++) shares[k] = (router.normalise ? shares[k] / (total + 1e-20f) : shares[k]) * router.scaling;
}

Layout layout_of(const Operation& o) { return Layout(o.kind == PACK ? o.heads : 1, o.width); }

// Rows a thread from which on threads share a product's rows, not its panels: each reads all weights, but they need not wait for each
// other nor fetch what another has just written.
constexpr int MANY_ROWS = 128, ROWS_TOGETHER = 32;

}  // namespace

void Engine::set_buffers(const int32_t* widths, const int32_t* spaces, int count, int packed_width) {
  slots_ = 0;
  for (const Router& router : routers) slots_ = std::max(slots_, router.top_k);
  const long slots = (long)most_rows * slots_;
  buffers_.clear();
  for (int i = 0; i < count; i++) {
    const long rows = spaces[i] == TOKENS ? most_rows : spaces[i] == PICKED ? most_picked : slots;
    buffers_.push_back({(float*)buffer_arena_.take((rows * widths[i] + LANES) * sizeof(float)), widths[i]});
  }
  packed_.reserve(std::max({(long)most_rows, (long)most_picked, slots}), packed_width);
  own_ = std::vector<Activations>(team_.size);
  for (Activations& own : own_) own.reserve(most_rows >= team_.size * MANY_ROWS ? most_rows / team_.size + ROWS_TOGETHER : 0, packed_width);
  scratch_.assign(team_.size, {}), mass_.assign(team_.size, {}), edited_.assign(team_.size, {});
  positions_.resize(most_rows), chunk_of_.resize(most_rows);
  expert_of_.resize(slots), slot_of_.resize(slots), share_.resize(slots);
}

int Engine::add_weight(Format format, int outputs, int inputs) {
  weights.push_back({format, outputs, inputs});
  shape_weight(weights.back(), arena_);
  return (int)weights.size() - 1;
}

void Engine::pack(int weight, Matrix source, const float* bias) {
  Weight& w = weights[weight];
  w.bias.clear();
  if (bias) w.bias.assign(bias, bias + w.outputs), w.bias.resize(w.panels * LANES, 0);
  team_.run([&](int id) {
    auto [first, last] = team_.share(id, w.panels);
    pack_weight(w, source, first, last);
  });
}

// Memory that nobody has touched is zero and costs nothing, so a large cache is free until it is used.
bool Engine::set_cache(const Cache& shape) {
  drop_cache();
  cache = shape;
  const size_t bytes = cache.pages * cache.page_bytes();
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return false;
  madvise(memory, bytes, MADV_HUGEPAGE);
  cache.data = (char*)memory;
  return true;
}

void Engine::drop_cache() {
  if (cache.data) munmap(cache.data, cache.pages * cache.page_bytes());
  cache.data = nullptr;
}

void Engine::step(const Batch& batch) {
  run(batch);
  if (batch.follow) follow(batch);
}

void Engine::follow(const Batch& batch) {
  const Follow& f = *batch.follow;
  auto& [tokens, table, picked, sources, draws] = follow_;
  tokens.clear(), table.clear(), picked.clear(), sources.clear(), draws.clear();
  for (int s = 0, j = 0; s < f.sequences; j += f.counts[s++]) {
    const int row = batch.picked_rows[j];
    const bool both = f.counts[s] == 2 && f.rooms[s] > 1 && batch.tokens[batch.picked_rows[j + 1]] == batch.drawn[j].token;
    f.kept[s] = both ? 2 : 1;
    table.insert(table.end(), {(int32_t)tokens.size(), f.kept[s], positions_[row] + 1, f.begins[s], batch.chunk_table[5 * chunk_of_[row] + 4]});
    for (int k = j; k < j + f.kept[s]; k++) {
      if (batch.drawn[k].token < 0) return;  // the caller gives up
      tokens.push_back(batch.drawn[k].token), sources.push_back(batch.picked_rows[k]);
    }
    picked.push_back((int32_t)tokens.size() - 1), draws.push_back(batch.draws[j]);
  }
  if (!f.sequences) return;
  run({(int32_t)tokens.size(), f.sequences, f.sequences, f.first, f.last, tokens.data(), table.data(), f.pages, picked.data(), draws.data(), f.drawn,
       nullptr, sources.data(), nullptr});
}

void Engine::run(const Batch& batch) {
  batch_ = batch, chunks_.clear(), fellows_.clear();
  int most = 1;
  for (int c = 0; c < batch.chunks; c++) {
    const int32_t* row = batch.chunk_table + 5 * c;
    chunks_.push_back({row[0], row[1], row[2], batch.pages + row[3]});
    if (row[4] >= 0) add_fellows(row[0], row[1], row[4]);
    most = std::max(most, row[1]);
    for (int i = 0; i < row[1]; i++) positions_[row[0] + i] = row[2] + i, chunk_of_[row[0] + i] = c;
  }
  if (batch.first == batch.last) return;
  find_relatives();
  const size_t floats = scratch_floats(cache, query_heads, most, most_tokens);
  for (auto& scratch : scratch_)
    if (scratch.size() < floats + 4 * LANES) scratch.resize(floats + 4 * LANES);
  logits_ = batch.picked ? row(program[batch.last - 1].to, 0) : nullptr;
  team_.run([&](int id) {
    Tiles tiles;
    const Operation* const last_operation = program.data() + batch_.last;
    for (const Operation *first = program.data() + batch_.first, *end = first; first != last_operation; first = end) {
      if (first->space == PICKED && !batch_.picked) break;
      end = first + 1;
      if (id == 0) next_.store(0, std::memory_order_relaxed);  // read only after the operation's own first barrier
      if (apart(*first)) {
        while (end != last_operation && apart(*end) && end->space == first->space) end++;
        perform_apart(first, end, id);
      } else {
        perform(*first, id);
      }
      team_.barrier();
    }
    for (auto [j, last] = team_.share(id, batch_.picked); j < last; j++) {
      const float* own = logits_ + (long)j * vocabulary;
      batch_.drawn[j] = draw(own, vocabulary, batch_.draws[j], positions_[batch_.picked_rows[j]] + 1, mass_[id]);
      if (batch_.logits) std::copy_n(own, vocabulary, batch_.logits + (long)j * vocabulary);
    }
  });
}

// Among the picks of the last call.
void Engine::decide(Choice* choices, int count) {
  team_.run([&](int id) {
    for (auto [c, last] = team_.share(id, count); c < last; c++)
      spoutnik::decide(logits_ + (long)choices[c].pick * vocabulary, vocabulary, choices[c], mass_[id], edited_[id]);
  });
}

// Rows that get something added take the path of few rows: additions follow the panels that a thread made.
bool Engine::many_rows(Space space) const { return space == TOKENS && fellows_.empty() && batch_.rows >= team_.size * MANY_ROWS; }

// Whether a thread touches nothing but its own share of the rows.
bool Engine::apart(const Operation& o) const {
  return o.kind == LINEAR ? many_rows(o.space) : o.kind != ATTEND && o.kind != ROUTE && o.kind != SPREAD;
}

void Engine::perform(const Operation& o, int id) {
  switch (o.kind) {
    case LINEAR: return linear(o, id);
    case ATTEND: return attention(o, id);
    case ROUTE: return route(o, id);
    default: return perform_apart(&o, &o + 1, id);
  }
}

// The thread's rows through all of these operations: row by row, so that what one writes is still near when the next reads it, but for
// products.
void Engine::perform_apart(const Operation* first, const Operation* end, int id) {
  const bool many = many_rows(first->space);
  const auto [begin, last] = team_.share(id, rows_of(first->space), many ? ROWS_TOGETHER : 1);
  for (const Operation* until; first < end; first = until) {
    until = first + 1;
    if (first->kind == LINEAR) {
      linear_rows(*first, begin, last - begin, id);
      continue;
    }
    while (until < end && until->kind != LINEAR) until++;
    for (int r = begin; r < last; r++)
      for (const Operation* o = first; o < until; o++) perform_row(*o, r, many ? own_[id] : packed_, many ? r - begin : r);
  }
}

// `place` is the row's in `packed`.
void Engine::perform_row(const Operation& o, int r, Activations& packed, int place) {
  const float* constant = o.constant >= 0 ? constants[o.constant] : nullptr;
  const float* from = o.from >= 0 ? row(o.from, r) + o.from_offset : nullptr;
  float* to = o.to >= 0 ? row(o.to, r) + o.to_offset : nullptr;
  switch (o.kind) {
    case EMBED:
      if (!o.flag) std::copy_n(constant + (long)batch_.tokens[r] * o.width, o.width, to);
      else floats((const uint16_t*)constant + (long)batch_.tokens[r] * o.width, o.width, to);
      break;
    case NORM: norm(from, o.width, constant, o.number, to); break;
    case PACK:
      for (int h = 0; h < o.heads; h++) pack_row(packed, layout_of(o), (Format)o.flag, place, h, from + h * o.from_stride, o.width);
      break;
    case ROTATE:
      for (int h = 0; h < o.heads; h++)
        rotate(from + h * o.from_stride, o.width, constant + (long)positions_[r] * o.width, o.flag, to + h * o.to_stride);
      break;
    case REMEMBER: {
      const Chunk& chunk = chunks_[chunk_of_[r]];
      remember(cache, chunk, int(r - chunk.first_row), o.layer, from, o.from_stride, to, o.to_stride);
      break;
    }
    case SPREAD:
      for (int k = 0; k < slots_; k++) pack_row(packed_, layout_of(o), (Format)o.flag, slot_of_[r * slots_ + k], 0, from, o.width);
      break;
    case GATHER:
      for (int k = 0; k < slots_; k++) {
        const float* out = row(o.from, slot_of_[r * slots_ + k]) + o.from_offset;
        const float share = share_[r * slots_ + k];
        for (int i = 0; i < o.width; i++) to[i] += share * out[i];
      }
      break;
    case PICK: std::copy_n(row(o.from, batch_.picked_rows[r]) + o.from_offset, o.width, to); break;
    case CARRY: std::copy_n(row(o.from, batch_.sources[r]) + o.from_offset, o.width, to); break;
    default: break;
  }
}

// A gated product to which something is added stores its sums; go_up ends it.
Target Engine::target(const Operation& o, long first, int head) {
  if (o.flag == GATE && adapted(o)) return {opened(o, first), (long)weights[o.weight].panels * LANES, STORE};
  return {row(o.to, first) + o.to_offset + head * o.to_stride, buffers_[o.to].width, (Ending)o.flag};
}

// That of the activations before the product: a segment for each head; an expert's rows have one.
Layout Engine::layout_for(const Operation& o) const { return Layout(o.space == SLOTS ? 1 : o.heads, weights[o.weight].inputs); }

// Threads share the panels; every thread takes all rows of its own, so that a weight is read from memory once.
void Engine::linear(const Operation& o, int id) {
  const int rows = rows_of(o.space), panels = weights[o.weight].panels;
  const Packed packed = packed_.in(layout_for(o));
  const bool adapts = adapted(o);
  if (adapts) go_down(o, id);
  if (o.space == SLOTS) {  // one weight an expert, over the expert's rows
    auto [first, last] = team_.share(id, panels, 2);
    for (int e = 0; e < o.heads; e++) {
      const int begin = expert_begin_[e], count = expert_begin_[e + 1] - begin;
      if (count) multiply(weights[o.weight + e], packed, begin, count, 0, first, last, target(o, begin, 0), weights[o.weight + e].panel(last));
    }
    return;
  }
  auto [first, last] = panels_of(o, id, rows);
  const char* after = read_next(o, id, rows);
  for (int head = first / panels; head * panels < last; head++) {
    const int from = std::max(first - head * panels, 0), until = std::min(last - head * panels, panels);
    multiply(weights[o.weight + head], packed, 0, rows, head, from, until, target(o, 0, head), after);
  }
  if (!adapts) return;
  team_.barrier();
  go_up(o, id, first, last);
}

// All panels for rows [first, first + rows), which the thread packed for itself.
void Engine::linear_rows(const Operation& o, int first, int rows, int id) {
  const Packed packed = own_[id].in(layout_for(o));
  for (int head = 0; head < o.heads && rows; head++) {
    const Weight& weight = weights[o.weight + head];
    multiply(weight, packed, 0, rows, head, 0, weight.panels, target(o, first, head), weight.panel(weight.panels));
  }
}

// A thread's share of a product's panels, counted through all heads.
std::pair<int, int> Engine::panels_of(const Operation& o, int id, int rows) const {
  return team_.share(id, weights[o.weight].panels * o.heads, rows == 1 ? 4 : 2);
}

// Where the thread reads weights after this operation; where the choice of experts decides, somewhere near.
const char* Engine::read_next(const Operation& o, int id, int rows) const {
  const Operation *next = &o + 1, *end = program.data() + batch_.last;
  while (next < end && next->kind != LINEAR) next++;
  if (next == end) next = std::find_if(program.data(), end, [](const Operation& any) { return any.kind == LINEAR; });
  const Weight& weight = weights[next->weight];
  const int first = next->space == SLOTS ? 0 : panels_of(*next, id, rows).first;
  return weights[next->weight + first / weight.panels].panel(first % weight.panels);
}

// Threads take (chunk, key head) pairs as they come free, from the last on: a prompt's last chunk has most to read.
void Engine::attention(const Operation& o, int id) {
  team_.barrier();
  const Attention a{o.layer, query_heads, o.flag, o.width, o.number, row(o.from, 0) + o.from_offset, buffers_[o.from].width,
                    row(o.to, 0) + o.to_offset, buffers_[o.to].width};
  const int units = (int)relatives_.size() * cache.heads;
  auto these = [&](int unit) -> const Relatives& { return relatives_[relatives_.size() - 1 - unit / cache.heads]; };
  for (int unit = next_.fetch_add(1), next; unit < units; unit = next) {
    next = next_.fetch_add(1);
    const Chunk *const *chunks = &order_[these(unit).first], *then = next < units ? order_[these(next).first] : nullptr;
    if (these(unit).count == 1) attend(cache, a, **chunks, unit % cache.heads, then, next % cache.heads, scratch_[id].data());
    else attend_together(cache, a, chunks, these(unit).count, these(unit).shared, unit % cache.heads, scratch_[id].data());
  }
}

// Puts sequences of a single token whose first pages are the same together: samples of one prompt.
void Engine::find_relatives() {
  constexpr int FEWEST_PAGES = 2;
  auto windowed = [](const Operation& o) { return o.kind == ATTEND && o.flag; };
  const bool alone = chunks_.size() < 2 || std::any_of(program.begin(), program.end(), windowed);
  const int most = alone ? 1 : most_together(cache, query_heads);
  auto common = [](const Chunk& a, const Chunk& b) {
    const int pages = std::min(a.position, b.position) / PAGE;  // whole ones: who writes one has it alone
    return int(std::mismatch(a.pages, a.pages + pages, b.pages).first - a.pages);
  };
  order_.clear(), relatives_.clear();
  for (const Chunk& chunk : chunks_) order_.push_back(&chunk);
  if (most > 1)
    std::stable_sort(order_.begin(), order_.end(), [](const Chunk* a, const Chunk* b) {
      return a->rows == 1 && b->rows == 1 ? a->pages[0] < b->pages[0] : a->rows > 1 && b->rows == 1;
    });
  for (int i = 0; i < (int)order_.size(); i++) {
    Relatives* last = relatives_.empty() ? nullptr : &relatives_.back();
    if (last && most > 1 && order_[i]->rows == 1 && order_[last->first]->rows == 1 && last->count < most) {
      const int shared = common(*order_[last->first], *order_[i]);
      if (shared >= FEWEST_PAGES && (last->count == 1 || shared >= last->shared)) {
        last->shared = last->count == 1 ? shared : last->shared, last->count++;
        continue;
      }
    }
    relatives_.push_back({i, 1, 0});
  }
}

// Each token's experts, then the rows of each expert in the order of tokens.
void Engine::route(const Operation& o, int id) {
  const Router& router = routers[o.flag];
  const int rows = batch_.rows, top_k = router.top_k;
  for (auto [r, last] = team_.share(id, rows); r < last; r++)
    choose(router, row(o.from, r), router.bias >= 0 ? constants[router.bias] : nullptr, &expert_of_[r * top_k], &share_[r * top_k]);
  team_.barrier();
  if (id) return;
  expert_begin_.assign(router.experts + 1, 0);
  for (int i = 0; i < rows * top_k; i++) expert_begin_[expert_of_[i] + 1]++;
  std::partial_sum(expert_begin_.begin(), expert_begin_.end(), expert_begin_.begin());
  std::vector<int> next(expert_begin_.begin(), expert_begin_.end() - 1);
  for (int i = 0; i < rows * top_k; i++) slot_of_[i] = next[expert_of_[i]]++;
}

}  // namespace spoutnik

// What Python calls (native.py). Sizes are checked there.
using namespace spoutnik;
extern "C" {
int32_t spoutnik_tiles() { return tiles_granted(); }
Engine* spoutnik_new(int32_t threads) { return new Engine(threads); }
void spoutnik_free(Engine* engine) { delete engine; }

int32_t spoutnik_weight(Engine* engine, int32_t format, int32_t outputs, int32_t inputs) {
  return engine->add_weight((Format)format, outputs, inputs);
}
void spoutnik_pack(Engine* engine, int32_t weight, const void* source, int32_t bf16, const float* bias) {
  engine->pack(weight, {source, bf16 != 0}, bias);
}
void spoutnik_constant(Engine* engine, int32_t number, const float* values) {
  if (number == (int32_t)engine->constants.size()) engine->constants.push_back(values);
  else engine->constants[number] = values;
}
int32_t spoutnik_router(Engine* engine, const Router* router) {
  engine->routers.push_back(*router);
  return (int32_t)engine->routers.size() - 1;
}
void spoutnik_program(Engine* engine, const Operation* operations, int32_t count, const int32_t* widths, const int32_t* spaces, int32_t buffers,
                      int32_t packed_width, int32_t most_rows, int32_t most_picked, int32_t most_tokens, int32_t query_heads, int32_t vocabulary) {
  engine->program.assign(operations, operations + count);
  engine->most_rows = most_rows, engine->most_picked = most_picked, engine->most_tokens = most_tokens;
  engine->query_heads = query_heads, engine->vocabulary = vocabulary;
  engine->set_buffers(widths, spaces, buffers, packed_width);
}
int32_t spoutnik_cache(Engine* engine, int32_t bf16, int32_t layers, int32_t heads, int32_t key, int32_t value, int32_t pages) {
  return engine->set_cache({bf16 != 0, layers, heads, key, value, pages, nullptr});
}
uint64_t spoutnik_page_bytes(int32_t bf16, int32_t layers, int32_t heads, int32_t key, int32_t value) {
  return Cache{bf16 != 0, layers, heads, key, value, 0, nullptr}.page_bytes();
}
char* spoutnik_page(Engine* engine, int32_t page) { return engine->cache.data + page * engine->cache.page_bytes(); }
void spoutnik_adapter(Engine* engine, int32_t number, const Addition* additions, int32_t count) {
  engine->set_adapter(number, additions, count);
}
void spoutnik_step(Engine* engine, const Batch* batch) { engine->step(*batch); }
const float* spoutnik_logits(Engine* engine) { return engine->logits(); }
void spoutnik_decide(Engine* engine, Choice* choices, int32_t count) { engine->decide(choices, count); }
}

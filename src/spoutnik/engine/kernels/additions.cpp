// What adapters add to the products of a step (adapter.h). All threads go down together, then each up to the outputs that it computed.
#include <algorithm>

#include "step.h"

namespace spoutnik {

// Takes an adapter's additions to all products of the program, and makes room for what they need; none remove it.
void Engine::set_adapter(int number, const Addition* additions, int count) {
  if (number >= (int)adapters_.size()) adapters_.resize(number + 1);
  adapters_[number].assign(additions, additions + count);
  int ranks = 0, open = 0;
  for (const Operation& o : program) {
    if (o.kind != LINEAR || o.constant < 0 || !count || !additions[o.constant].ranks) continue;
    ranks = std::max(ranks, additions[o.constant].ranks);
    low_width_ = std::max(low_width_, additions[o.constant].ranks * PARTS * o.heads);
    if (o.flag == GATE) open = std::max(open, weights[o.weight].panels * LANES);
  }
  auto grow = [](std::vector<float>& values, size_t size) { values.resize(std::max(values.size(), size)); };
  grow(low_, (size_t)most_rows * low_width_);
  grow(open_, (size_t)most_rows * open);
  scaled_.resize(team_.size);
  for (auto& scaled : scaled_) grow(scaled, FELLOWS * ranks);
}

void Engine::add_fellows(int first_row, int count, int adapter) {
  for (int r = first_row; r < first_row + count; r++) {
    auto full = [&](const Fellows& f) { return f.adapter != adapter || f.count == FELLOWS; };
    auto found = std::find_if_not(fellows_.rbegin(), fellows_.rend(), full);
    if (found == fellows_.rend()) fellows_.push_back({adapter, 1, {r}});
    else found->rows[found->count++] = r;
  }
}

// Whether any row of the step gets something added to this product.
bool Engine::adapted(const Operation& o) const {
  return o.constant >= 0 && std::any_of(fellows_.begin(), fellows_.end(), [&](const Fellows& f) { return addition(f, o, 0).ranks; });
}

void Engine::go_down(const Operation& o, int id) {
  const float* from[FELLOWS];
  float* to[FELLOWS];
  for (auto [unit, last] = team_.share(id, (int)fellows_.size() * PARTS); unit < last; unit++) {
    const Fellows& f = fellows_[unit / PARTS];
    for (int head = 0; head < o.heads; head++) {
      const Addition& a = addition(f, o, head);
      for (int i = 0; i < f.count; i++) {
        from[i] = row(o.from, f.rows[i]) + o.from_offset + head * o.from_stride;
        to[i] = low(a, f.rows[i], head, unit % PARTS);
      }
      spoutnik::go_down(a, unit % PARTS, f.count, from, to);
    }
  }
}

// To panels [first, last), counted through all heads. A gated product, whose sums are open by now, is ended here.
void Engine::go_up(const Operation& o, int id, int first, int last) {
  const Weight& w = weights[o.weight];
  const bool open = o.flag == GATE;
  float *scaled = scaled_[id].data(), *to[FELLOWS];
  for (const Fellows& f : fellows_)
    for (int head = first / w.panels; head * w.panels < last; head++) {
      const Addition& a = addition(f, o, head);
      for (int i = 0; i < f.count; i++) {
        to[i] = open ? opened(o, f.rows[i]) : row(o.to, f.rows[i]) + o.to_offset + head * o.to_stride;
        for (int j = 0; j < a.ranks; j += LANES) {
          auto part = [&](int p) { return load<f32x16>(low(a, f.rows[i], head, p) + j); };
          store(scaled + i * a.ranks + j, ((part(0) + part(1)) + (part(2) + part(3))) * load<f32x16>(a.scale + j));
        }
      }
      for (int p = std::max(first - head * w.panels, 0); a.ranks && p < std::min(last - head * w.panels, w.panels); p++)
        spoutnik::go_up(a, p, w.outputs - p * LANES, f.count, scaled, to);
    }
  for (int r = 0; open && r < batch_.rows; r++)
    for (int p = first; p < last; p += 2) {
      const float* sums = opened(o, r) + p * LANES;
      store(row(o.to, r) + o.to_offset + p / 2 * LANES, silu(load<f32x16>(sums)) * load<f32x16>(sums + LANES));
    }
}

}  // namespace spoutnik

#include "simd.h"
#include "sampler.h"

#include <algorithm>
#include <numeric>

namespace spoutnik {
namespace {

constexpr int BLOCK = 128;  // tokens summed together before the distribution function is searched

// What a token weighs: e^((logit - peak) / temperature), sixteen at a time, 0 beyond the vocabulary.
struct Masses {
  const float* logits;
  int vocabulary;
  float peak, inverse;

  f32x16 at(int token) const {
    f32x16 lanes = splat(-INFINITY);
    if (token + LANES <= vocabulary) lanes = load<f32x16>(logits + token);
    else std::memcpy(&lanes, logits + token, (vocabulary - token) * sizeof(float));
    lanes = (lanes - peak) * inverse;
    return lanes > -87.0f ? exponential(lanes) : f32x16{};
  }
};

// The token at `point` of the distribution function in the order 0, 1, ..., by blocks first.
int invert(const Masses& masses, const std::vector<double>& blocks, double point) {
  size_t block = 0;
  for (; block + 1 < blocks.size() && point >= blocks[block]; block++) point -= blocks[block];
  int last = -1;
  for (int start = (int)block * BLOCK; start < std::min(masses.vocabulary, (int)(block + 1) * BLOCK); start += LANES) {
    const f32x16 mass = masses.at(start);
    for (int i = 0; i < LANES; i++) {
      if (mass[i] > 0) last = start + i;
      if (point < mass[i]) return start + i;
      point -= mass[i];
    }
  }
  return last;  // rounding carried the point past the block's end
}

// Among the top_k likeliest tokens, the fewest that hold top_p of their mass.
int invert_truncated(const std::vector<float>& mass, double total, const Draw& wanted) {
  const size_t most = wanted.top_k ? std::min<size_t>(wanted.top_k, mass.size()) : mass.size();
  // Tokens below this mass together hold less than what top_p leaves out, so they are never inside.
  const double least = wanted.top_k ? 0 : (1 - wanted.top_p) * total / mass.size();
  std::vector<int> order;
  for (size_t token = 0; token < mass.size(); token++)
    if (mass[token] > 0 && mass[token] >= least) order.push_back((int)token);
  auto likelier = [&](int a, int b) { return mass[a] > mass[b] || (mass[a] == mass[b] && a < b); };
  if (order.size() > most) {
    std::nth_element(order.begin(), order.begin() + most, order.end(), likelier);
    order.resize(most);
  }
  std::sort(order.begin(), order.end(), likelier);
  double held = total;
  if (wanted.top_k) held = std::accumulate(order.begin(), order.end(), 0.0, [&](double sum, int token) { return sum + mass[token]; });
  size_t inside = 0;
  double reached = 0;
  for (; inside < order.size() && reached < wanted.top_p * held; inside++) reached += mass[order[inside]];
  double point = wanted.uniform * reached;
  for (size_t i = 0; i + 1 < inside; i++) {
    if (point < mass[order[i]]) return order[i];
    point -= mass[order[i]];
  }
  return order[inside - 1];
}

int first_of(const float* logits, int vocabulary, float value) {
  int start = 0;
  for (; start + LANES <= vocabulary; start += LANES) {
    const i32x16 same = load<f32x16>(logits + start) == value;
    if (largest((f32x16)(same & 0x3f800000)) > 0) break;
  }
  return int(std::find(logits + start, logits + vocabulary, value) - logits);
}

uint64_t mix(uint64_t state) {
  state += 0x9E3779B97F4A7C15;
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EB;
  return state ^ (state >> 31);
}

// `uniforms` of engine/sampler.py.
double uniform(uint64_t seed, int position) { return double(mix(mix(seed) + position * 0x9E3779B97F4A7C15) >> 24) * 0x1p-40; }

}  // namespace

Drawn draw(const float* logits, int vocabulary, Draw wanted, int position, std::vector<float>& mass) {
  if (wanted.uniform < 0) wanted.uniform = uniform(wanted.seed, position);
  const float inverse = wanted.temperature > 0 ? 1 / wanted.temperature : 1;
  const int whole = vocabulary / LANES * LANES;
  f32x16 highest = splat(-INFINITY);
  i32x16 wrong = {};  // comparisons pass NaN over, so it is looked for
  for (int t = 0; t < whole; t += LANES) {
    const f32x16 lanes = load<f32x16>(logits + t);
    highest = greater(lanes, highest), wrong |= lanes != lanes;
  }
  float peak = largest(highest);
  bool broken = false;
  for (int i = 0; i < LANES; i++) broken |= wrong[i] != 0;
  for (int t = whole; t < vocabulary; t++) peak = std::max(peak, logits[t]), broken |= std::isnan(logits[t]);
  if (broken || !std::isfinite(peak)) return {-1, 0};
  const Masses masses{logits, vocabulary, peak, inverse};
  std::vector<double> blocks((vocabulary + BLOCK - 1) / BLOCK);
  for (int block = 0; block < (int)blocks.size(); block++) {
    f32x16 sums = {};
    for (int t = block * BLOCK; t < std::min(vocabulary, (block + 1) * BLOCK); t += LANES) sums = sums + masses.at(t);
    blocks[block] = sum(sums);
  }
  const double total = std::accumulate(blocks.begin(), blocks.end(), 0.0);
  int token = wanted.forced;
  if (token < 0) {
    if (wanted.temperature <= 0) {
      token = first_of(logits, vocabulary, peak);
    } else if (wanted.top_k || wanted.top_p < 1) {
      mass.resize(blocks.size() * BLOCK);
      for (int t = 0; t < vocabulary; t += LANES) store(&mass[t], masses.at(t));
      mass.resize(vocabulary);
      token = invert_truncated(mass, total, wanted);
    } else {
      token = invert(masses, blocks, wanted.uniform * total);
    }
  }
  return {token, (logits[token] - peak) * inverse - (float)std::log(total)};
}

}  // namespace spoutnik

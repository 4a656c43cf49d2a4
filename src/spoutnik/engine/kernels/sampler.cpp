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

// What all tokens of a row share.
struct Measured {
  Masses masses;
  std::vector<double> blocks;  // their sums
  double total;
  bool finite;

  float logprob(int token) const { return (masses.logits[token] - masses.peak) * masses.inverse - (float)std::log(total); }
};

Measured measure(const float* logits, int vocabulary, float temperature) {
  const float inverse = temperature > 0 ? 1 / temperature : 1;
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
  Measured measured{{logits, vocabulary, peak, inverse}, {}, 0, !broken && std::isfinite(peak)};
  if (!measured.finite) return measured;
  measured.blocks.resize((vocabulary + BLOCK - 1) / BLOCK);
  for (int block = 0; block < (int)measured.blocks.size(); block++) {
    f32x16 sums = {};
    for (int t = block * BLOCK; t < std::min(vocabulary, (block + 1) * BLOCK); t += LANES) sums = sums + measured.masses.at(t);
    measured.blocks[block] = sum(sums);
  }
  measured.total = std::accumulate(measured.blocks.begin(), measured.blocks.end(), 0.0);
  return measured;
}

// `position` is where the token will stand. `mass` is scratch.
int pick(const Measured& measured, Draw wanted, int position, std::vector<float>& mass) {
  const auto [logits, vocabulary, peak, inverse] = measured.masses;
  if (wanted.temperature <= 0) return first_of(logits, vocabulary, peak);
  if (wanted.uniform < 0) wanted.uniform = uniform(wanted.seed, position);
  if (!wanted.top_k && wanted.top_p >= 1) return invert(measured.masses, measured.blocks, wanted.uniform * measured.total);
  mass.resize(measured.blocks.size() * BLOCK);
  for (int t = 0; t < vocabulary; t += LANES) store(&mass[t], measured.masses.at(t));
  mass.resize(vocabulary);
  return invert_truncated(mass, measured.total, wanted);
}

// The logits that a choice draws from; see Steering.edit in engine/steering.py.
void edit(const float* logits, int vocabulary, const Choice& choice, std::vector<float>& edited) {
  edited.assign(logits, logits + vocabulary);
  for (int i = 0; i < choice.changes; i++) edited[choice.tokens[i]] = choice.values[i];
  for (int word = 0; choice.mask && word * 32 < vocabulary; word++) {
    const uint32_t allowed = choice.mask[word];
    const int end = std::min(32, vocabulary - word * 32);
    float* const of_word = &edited[word * 32];
    if (allowed == 0) std::fill_n(of_word, end, -INFINITY);
    else if (allowed != ~0u)
      for (int i = 0; i < end; i++) of_word[i] = allowed >> i & 1 ? of_word[i] : -INFINITY;
  }
  if (choice.margin == -INFINITY) return;
  const float least = *std::max_element(edited.begin(), edited.end()) + choice.margin;
  for (float& logit : edited) logit = logit < least ? -INFINITY : logit;
}

// Likeliest first; of equal ones the smaller token first.
void find_likeliest(const Measured& measured, Choice& choice) {
  const float* const logits = measured.masses.logits;
  const int vocabulary = measured.masses.vocabulary;
  int found = 0;
  auto offer = [&](int token) {
    if (found == choice.tops && logits[token] <= logits[choice.top_tokens[found - 1]]) return;
    int place = found < choice.tops ? found++ : found - 1;
    for (; place > 0 && logits[choice.top_tokens[place - 1]] < logits[token]; place--) choice.top_tokens[place] = choice.top_tokens[place - 1];
    choice.top_tokens[place] = token;
  };
  int token = 0;
  for (; token < std::min(vocabulary, choice.tops); token++) offer(token);
  for (; token + LANES <= vocabulary; token += LANES) {
    if (largest(load<f32x16>(logits + token)) <= logits[choice.top_tokens[found - 1]]) continue;
    for (int i = 0; i < LANES; i++) offer(token + i);
  }
  for (; token < vocabulary; token++) offer(token);
  for (int i = 0; i < found; i++) choice.top_logprobs[i] = measured.logprob(choice.top_tokens[i]);
}

}  // namespace

Drawn draw(const float* logits, int vocabulary, const Draw& wanted, int position, std::vector<float>& mass) {
  const Measured measured = measure(logits, vocabulary, wanted.temperature);
  if (!measured.finite) return {-1, 0};
  const int token = wanted.forced >= 0 ? wanted.forced : pick(measured, wanted, position, mass);
  return {token, measured.logprob(token)};
}

void decide(const float* logits, int vocabulary, Choice& choice, std::vector<float>& mass, std::vector<float>& edited) {
  const Measured measured = measure(logits, vocabulary, choice.draw.temperature);
  choice.drawn = {-1, 0};
  if (!measured.finite) return;
  int token = choice.draw.forced;
  if (token < 0 && (choice.mask || choice.changes || choice.margin > -INFINITY)) {
    edit(logits, vocabulary, choice, edited);
    token = pick(measure(edited.data(), vocabulary, choice.draw.temperature), choice.draw, choice.position, mass);
  } else if (token < 0) {
    token = pick(measured, choice.draw, choice.position, mass);
  }
  choice.drawn = {token, measured.logprob(token)};
  if (choice.tops) find_likeliest(measured, choice);
}

}  // namespace spoutnik

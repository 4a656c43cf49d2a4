// From logits to one token: the rule of engine/sampler.py, one row at a time.
#pragma once
#include <vector>

namespace spoutnik {

struct Draw {
  double uniform;     // in [0, 1): where the distribution function is inverted; -1 to make it of the seed and the token's position
  double top_p;       // 1 for off
  float temperature;  // 0 for the likeliest token
  int32_t top_k;      // 0 for off
  int32_t forced;     // a token whose log-probability is wanted, or -1 to draw one
  int32_t unused;
  uint64_t seed;
};

struct Drawn {
  int32_t token;  // -1 where the logits are not finite
  float logprob;  // at the temperature (at 1 for 0), before top_k and top_p
};

constexpr int MOST_TOPS = 20;

// A draw from other logits than the model's own. What is said of the token, and of the likeliest ones, is the model's.
struct Choice {
  Draw draw;
  const uint32_t* mask;           // a bit for each token that may come; null for all
  const int32_t *tokens;          // [changes], whose logits become
  const float* values;            // [changes]
  int32_t changes;
  float margin;                   // tokens whose logits lie farther than this from the highest one may not come; 0 or below
  int32_t pick, position;         // which of the last call's picks, and where the token will stand
  int32_t tops;                   // how many of the likeliest tokens are wanted
  Drawn drawn;
  int32_t top_tokens[MOST_TOPS];  // [tops], or the vocabulary if that is less
  float top_logprobs[MOST_TOPS];
};
static_assert(sizeof(Choice) == 256);

// `position` is where the token will stand. `mass` is scratch.
Drawn draw(const float* logits, int vocabulary, const Draw& wanted, int position, std::vector<float>& mass);

// `mass` and `edited` are scratch.
void decide(const float* logits, int vocabulary, Choice& choice, std::vector<float>& mass, std::vector<float>& edited);

}  // namespace spoutnik

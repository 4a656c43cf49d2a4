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

// `position` is where the token will stand. `mass` is scratch.
Drawn draw(const float* logits, int vocabulary, Draw wanted, int position, std::vector<float>& mass);

}  // namespace spoutnik

// Low-rank additions to products (LoRA, arXiv 2106.09685): y += up (scale * (down x)), in float32.
//
// Bits depend on no other row and on no thread: `down x` is the sum of PARTS sums over as many parts of the inputs, each of CHAINS
// accumulators, and every output takes its ranks in order.
#pragma once
#include <cstdint>

#include "simd.h"

namespace spoutnik {

constexpr int FELLOWS = 8;  // rows of one adapter that share what is read of it
constexpr int PARTS = 4, CHAINS = 2;

// What one adapter adds to one product; a product of several matrices side by side has all their ranks, one matrix's after another's.
struct Addition {
  const void* down;      // [ranks / 16][inputs][16]
  const void* up;        // of each panel of the product's outputs the ranks that reach it, [ranks][16]
  const float* scale;    // [ranks]
  const int32_t* reach;  // [panels, 3]: where a panel begins in `up`, in vectors; its first rank; how many there are
  int32_t inputs, ranks, bf16;  // ranks are padded with zeros to a multiple of 16, and 0 where nothing is added
};

// One part of down x for up to FELLOWS rows, all ranks.
void go_down(const Addition& addition, int part, int rows, const float* const* from, float* const* to);

// Adds to a panel's 16 outputs (or those that there are of them) of up to FELLOWS rows, from scaled ranks [rows, ranks].
void go_up(const Addition& addition, int panel, int outputs, int rows, const float* low, float* const* to);

}  // namespace spoutnik

// Products of activations with packed weights: y[m, n] = sum over k of a[m, k] w[n, k].
//
// Weights lie in panels of 16 outputs, [N/16][K/step][16][step], so that a vector holds one step of 16 outputs. Every output element has
// one accumulator and takes its steps in order of k, whatever the number of rows: results do not depend on the batch, to the bit.
#pragma once
#include <vector>

#include "memory.h"
#include "simd.h"
#include "threads.h"

namespace spoutnik {

enum Format { FLOAT32, BFLOAT16, INT8, INT4 };
constexpr int GROUP = SPOUTNIK_GROUP;  // inputs that share a scale: of integer weights, and of the activations that they meet

// A matrix [outputs, inputs], packed. Sizes are padded with zeros: inputs to whole groups, outputs to whole panels.
struct Weight {
  Format format;
  int outputs, inputs, padded_inputs, panels;
  size_t panel_bytes;
  Memory memory;            // panels * panel_bytes
  std::vector<float> bias;  // one an output, or empty
};

// Rows of activations in the form that a weight's format wants: float, bfloat16, or bytes with a scale and a sum per group.
struct Activations {
  Memory memory;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  void reserve(long rows, int width);
};

// Makes room for a weight whose format, outputs and inputs are set; then packs panels [first, last) of a matrix in rows.
void shape_weight(Weight& weight);
void pack_weight(Weight& weight, const float* source, int first, int last);

// Writes `width` floats at `place` (a whole number of groups) of the activations, and zeros up to `padded`.
void pack_row(Activations& to, Format format, long place, int padded, const float* from, int width);

struct Target {
  float* rows;  // [rows, stride]
  long stride;
  bool add;  // to what stands there, or in its place
};

// Rows [first, first + rows) of `from` times panels [panel, last_panel) of the weight. `offset` is where in a row its inputs begin, and
// `padded` the length of a row.
void multiply(const Weight& weight, const Activations& from, long first, int rows, int padded, int offset, int panel, int last_panel, Target to);

}  // namespace spoutnik

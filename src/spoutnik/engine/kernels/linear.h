// Products of activations with packed weights: y[m, n] = sum over k of a[m, k] w[n, k].
//
// Weights lie in panels of 16 outputs, [N/16][K/step][16][step], so that a vector holds one step of 16 outputs, and a tile 32 bfloat16
// or 64 byte inputs of them. Every output element has one accumulator and takes its steps in order of k, whatever the number of rows:
// results do not depend on the batch, to the bit.
//
// Integer weights meet activations of 15 bits, one scale a row, as two signed bytes each (256 high + low). Their products are exact, so
// vectors and tiles give the same bits; scales come last.
#pragma once
#include <vector>

#include "memory.h"
#include "simd.h"
#include "threads.h"

namespace spoutnik {

enum Format { FLOAT32, BFLOAT16, INT8, INT4 };
constexpr int GROUP = SPOUTNIK_GROUP;  // inputs of a 4-bit weight that share a scale and a minimum
constexpr int DEPTH = SPOUTNIK_DEPTH;  // inputs are padded with zeros to a multiple of this, one byte tile

// A panel of int8 ends with 16 float scales. A panel of int4 is groups of [two steps: 16 outputs x 4 codes each in the low and the high
// halves of 64 bytes] x 4, then 16 scales and 16 minima in half precision.
constexpr int INT4_CODES = LANES * GROUP / 2, INT4_GROUP = INT4_CODES + 2 * LANES * 2;

// A matrix [outputs, inputs], packed. Outputs are padded to whole panels.
struct Weight {
  Format format;
  int outputs, inputs, padded_inputs, panels;
  size_t panel_bytes;
  char* data;               // panels * panel_bytes
  std::vector<float> bias;  // one an output, or empty
  const char* panel(int p) const { return data + p * panel_bytes; }
};

// How rows of activations lie: parts of equal padded length, one a head where heads are multiplied apart.
struct Layout {
  int segments = 1, padded = 0, stride = 0;  // values of a segment with its padding, and from one row to the next
  Layout() = default;
  Layout(int segments, int width);
};

// Rows of activations in the form that a weight's format wants, as they were packed. Integer rows have two byte rows, high and low, and a
// scale a segment.
struct Packed {
  const char* data;
  const float* scale;  // [rows, segments]
  const int32_t* sum;  // int8: [rows, segments, 2], of the high and the low bytes; int4: [rows, stride / GROUP], of whole numbers
  Layout layout;
};

// The memory of packed rows.
struct Activations {
  Memory memory;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  void reserve(long rows, int width);
  Packed in(Layout layout) const { return {memory.data, scale.data(), sum.data(), layout}; }
};

// Makes room for a weight whose format, outputs and inputs are set; then packs panels [first, last) of a matrix in rows.
void shape_weight(Weight& weight, Arena& arena);
void pack_weight(Weight& weight, const float* source, int first, int last);

// Writes one segment of one row: `width` floats and zeros behind them.
void pack_row(Activations& to, const Layout& layout, Format format, long row, int segment, const float* from, int width);

enum Ending { STORE, ADD, GATE };

// What becomes of the sums: they replace or join what stands in `rows` [rows, stride], or, of each two panels, silu(first) * second does
// for 16 columns (a gated network's two matrices, in turns of 16 outputs).
struct Target {
  float* rows;
  long stride;
  Ending ending;
};

// Rows [first, first + rows) of one segment times panels [panel, last) of the weight; target row 0 is the first of them. `after` is where
// this thread reads weights next: its beginning is fetched on the way.
void multiply(const Weight& weight, const Packed& from, long first, int rows, int segment, int panel, int last, Target to, const char* after);

}  // namespace spoutnik

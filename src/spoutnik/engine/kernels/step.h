// One call of the engine: a program of operations, written by Python for one architecture, over a batch of rows.
//
// A program works on float32 buffers [rows, width]. Products read the one `packed` buffer that the operation before them filled. All
// threads run every operation together and meet at a barrier after it.
#pragma once
#include <cstdint>
#include <vector>

#include "adapter.h"
#include "attention.h"
#include "linear.h"
#include "sampler.h"

namespace spoutnik {

enum Kind : int32_t {
  EMBED,     // to = rows of table `constant` (flag: bfloat16) for the batch's tokens
  NORM,      // to = RMS norm of from, times `constant`; `number` is epsilon
  PACK,      // packed = from, in the format `flag`, each head a segment
  LINEAR,    // to = packed times weight, with the ending `flag`; with heads > 1 head by head, each with the next weight and its own segment.
             // `constant` is its place among an adapter's additions (head by head, too) or -1; these read what was packed, in from
  ROTATE,    // to = rotary embedding of from, head by head; `constant` is the table [positions, 2, width / 2]; flag: interleaved pairs
  REMEMBER,  // cache = keys in from, values in to (both are read)
  ATTEND,    // to = attention of the queries in from; `number` is the scale, `flag` the window, `width` how many first keys are passed over
  ROUTE,     // chooses experts by the scores in from; see Router
  SPREAD,    // packed = from, one row for each expert of a token, in the experts' order, in the format `flag`
  GATHER,    // to += each token's experts' rows of from, by their weights
  PICK,      // to = the rows of from whose logits are wanted
  CARRY,     // to = the rows of from that the batch's `sources` name, as an earlier call left them
};

enum Space : int32_t { TOKENS, PICKED, SLOTS };

struct Operation {
  Kind kind;
  Space space;
  int32_t from, from_offset, from_stride;  // buffer, first column, columns from head to head
  int32_t to, to_offset, to_stride;
  int32_t width, heads;
  int32_t weight, constant, layer, flag;
  float number;
};

// DeepSeek's routers (model/moe.py). `bias` is a constant or -1; V3 normalises, V2 does not.
struct Router {
  int32_t experts, groups, open_groups, top_k, sigmoid, best, normalise, bias;
  float scaling;
};

// What a call goes on with: those drawn tokens of each sequence that count are fed to operations [first, last), which draw a guess of the
// token after them.
struct Follow {
  int32_t first, last, sequences, unused;
  const int32_t* counts;  // [sequences]: picks of each, in order; two where the second one's row holds a guess of what the first one draws
  const int32_t* rooms;   // [sequences]: how many of them may count
  const int32_t* begins;  // [sequences]: where its pages begin in `pages`
  const int32_t* pages;
  int32_t* kept;          // [sequences]: how many of its picks count
  Drawn* drawn;           // [sequences]
};

struct Batch {
  int32_t rows, chunks, picked;
  int32_t first, last;         // the operations of the program that are run: [first, last)
  const int32_t* tokens;       // [rows]
  const int32_t* chunk_table;  // [chunks, 5]: first row, rows, position, where its pages begin in `pages`, its adapter or -1
  const int32_t* pages;
  const int32_t* picked_rows;  // [picked]
  const Draw* draws;           // [picked]
  Drawn* drawn;                // [picked]
  float* logits;               // [picked, vocabulary] or null
  const int32_t* sources;      // [rows] or null
  const Follow* follow;        // or null; without operations of its own, a call goes on from what is in `drawn`
};

class Engine {
 public:
  explicit Engine(int threads) : team_(threads) {}
  ~Engine() { drop_cache(); }

  std::vector<Weight> weights;
  std::vector<const float*> constants;
  std::vector<Operation> program;
  std::vector<Router> routers;  // by layer; the program's ROUTE operations index it
  Cache cache{};
  int query_heads = 1, vocabulary = 0, most_rows = 0, most_picked = 0, most_tokens = 0;

  void set_buffers(const int32_t* widths, const int32_t* spaces, int count, int packed_width);
  bool set_cache(const Cache& shape);
  int add_weight(Format format, int outputs, int inputs);
  void pack(int weight, Matrix source, const float* bias);
  void set_adapter(int number, const Addition* additions, int count);
  void step(const Batch& batch);
  void decide(Choice* choices, int count);
  const float* logits() const { return logits_; }

 private:
  struct Buffer {
    float* values;
    int width;
  };
  struct Fellows {  // rows of one adapter
    int adapter, count, rows[FELLOWS];
  };
  void drop_cache();
  void add_fellows(int first_row, int count, int adapter);
  void run(const Batch& batch);
  void follow(const Batch& batch);
  void perform(const Operation& operation, int id);
  bool many_rows(Space space) const;
  bool apart(const Operation& operation) const;
  void perform_apart(const Operation* first, const Operation* end, int id);
  void perform_row(const Operation& operation, int row, Activations& packed, int place);
  Target target(const Operation& operation, long first, int head);
  Layout layout_for(const Operation& operation) const;
  void linear(const Operation& operation, int id);
  void linear_rows(const Operation& operation, int first, int rows, int id);
  bool adapted(const Operation& operation) const;
  void go_down(const Operation& operation, int id);
  void go_up(const Operation& operation, int id, int first, int last);
  const Addition& addition(const Fellows& f, const Operation& o, int head) const { return adapters_[f.adapter][o.constant + head]; }
  float* opened(const Operation& o, long row) { return &open_[row * weights[o.weight].panels * LANES]; }
  float* low(const Addition& a, int row, int head, int part) { return &low_[(size_t)row * low_width_ + (head * PARTS + part) * a.ranks]; }
  std::pair<int, int> panels_of(const Operation& operation, int id, int rows) const;
  const char* read_next(const Operation& operation, int id, int rows) const;
  void attention(const Operation& operation, int id);
  void find_relatives();
  void route(const Operation& operation, int id);
  int rows_of(Space space) const { return space == TOKENS ? batch_.rows : space == PICKED ? batch_.picked : batch_.rows * slots_; }
  float* row(int buffer, long row) { return buffers_[buffer].values + row * buffers_[buffer].width; }

  Team team_;
  Arena arena_, buffer_arena_;
  Batch batch_{};
  struct {
    std::vector<int32_t> tokens, table, picked, sources;
    std::vector<Draw> draws;
  } follow_;
  std::vector<Chunk> chunks_;
  struct Relatives {  // chunks that attend together, and how many pages they share; or a chunk alone
    int first, count, shared;
  };
  std::vector<const Chunk*> order_;  // chunks with their relatives beside them
  std::vector<Relatives> relatives_;
  std::vector<int> positions_, chunk_of_;
  std::vector<Buffer> buffers_;
  Activations packed_;
  std::vector<Activations> own_;  // a thread's, where it multiplies its own rows
  int slots_ = 0;
  std::vector<std::vector<float>> scratch_, mass_, edited_;
  const float* logits_ = nullptr;  // [picked, vocabulary] of the last call
  std::atomic<int> next_{0};
  std::vector<int> expert_of_, slot_of_, expert_begin_;  // of a token's choices [rows, top_k]; of an expert's rows [experts + 1]
  std::vector<float> share_;
  std::vector<std::vector<Addition>> adapters_;  // by their numbers; empty where there is none
  std::vector<Fellows> fellows_;                 // all rows of the step that have an adapter
  int low_width_ = 0;
  std::vector<float> low_, open_;            // [rows, low_width_]: heads of PARTS of ranks; of a gated product with additions the sums
  std::vector<std::vector<float>> scaled_;  // a thread's [FELLOWS, ranks]
};

}  // namespace spoutnik

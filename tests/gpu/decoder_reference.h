#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "adapter/adapter.h"
#include "batch/forward_batch.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_source.h"
#include "checkpoint/weight_table.h"
#include "cpu/thread_pool.h"

namespace braid::test {

// What a step left at each stage, by layer and name as GpuDecoder::Tap has them, and {-1,
// "logits"}: rows of tokens (of logits: those wanted), which may be padded.
using Stages = std::map<std::pair<int32_t, std::string>, std::vector<float>>;

// How far a step was from the reference.
struct StageErrors {
  std::string why_wrong;  // empty, or the first row of which an element was out of its bound
  // Relative L2 errors of rows, by name of the stage; and the same of what the adapter adds, of
  // rows of which that is an eighth at least.
  std::map<std::string, std::vector<double>> of_row, of_delta;
};

// Of any row: half the last place of BF16. But for "moe_out": between what it reads and what it
// stores h is rounded to e4m3, and 64 codes may be others where their largest h is near the middle
// of two BF16. (Errors of 2^-15 of the terms' sizes, put on gate and up of the reference, spread
// its rows just as the device's: 3e-3 in the middle, up to 3e-2.)
inline constexpr double kMaxRowError = 0x1p-8, kMaxDeltaError = 2e-2;
inline constexpr double kMaxMoeMedianError = 6e-3, kMaxMoeRowError = 5e-2;

// GpuDecoder in plain double, with roundings where its kernels round: BF16 of everything stored, of
// u and v, of h and each expert's output; e4m3 of what FP8 matrices read.
//
// Each stage is computed from what the device stored at the stage before. A decoder that goes on
// from its own values is no sharp oracle: sums in another order now and then move a BF16 value by
// its last bit, that moves an e4m3 code or the scale of 128 of them, by up to a sixteenth each, and
// after a few layers two right computations are 2 % apart. From stage to stage bounds come from
// arithmetic: an element is either equal, or so near to where rounding changes that the device's
// sum may fall on the other side.
//
// Attention reads keys and values computed here, at the places that the batch names: a sequence
// that refers to others' blocks finds what they left.
class DecoderReference {
 public:
  // `adapters` by slot. Weights that the device rounds to BF16 are rounded.
  DecoderReference(const ModelConfig& config, WeightSource& source,
                   std::vector<std::shared_ptr<const Adapter>> adapters, int32_t kv_block_size,
                   int32_t num_threads);

  // A step that stored `stages`, every one of them.
  StageErrors check(const ForwardBatch& batch, const Stages& stages);

  // A step by itself, each stage from its own result of the one before: what it would store.
  Stages run(const ForwardBatch& batch);

 private:
  // Values, and how far the device's may be from each; no errors: they are the device's.
  struct Row {
    std::vector<double> value, error;

    size_t size() const { return value.size(); }
    double error_of(size_t i) const { return error.empty() ? 0.0 : error[i]; }
  };
  using Rows = std::vector<Row>;  // by token
  struct Matrix {
    int32_t rows = 0;
    int32_t cols = 0;  // 0: a vector
    bool is_fp8 = false;
    std::vector<float> values;
  };
  struct Slice {
    const Matrix& weight;
    const LoraPair* lora = nullptr;
  };
  // A row of a stage before it is stored. `base`: without the adapter, empty where it has none.
  struct Outcome {
    Row row;
    std::vector<double> base;
  };
  enum class Stored { kBf16, kFloat };

  void step(const ForwardBatch& batch);
  Rows stage(int32_t layer, const std::string& name, Stored stored, size_t num_rows,
             const std::function<Outcome(size_t row)>& outcome);
  void compare(const std::string& where, const std::string& name, const Row& want,
               std::span<const double> base, std::span<const float> got);

  static Row rounded(const Row& x);
  static Row quantized(const Row& x, size_t block);
  static Row input_of(const Matrix& w, const Row& x, size_t block);
  static void add_product(const Matrix& w, const Row& input, size_t first, Row& y);
  static void add_delta(const LoraPair& lora, const Row& x, size_t first, size_t out, Row& y);
  static Outcome linear(const std::vector<Slice>& slices, const Row& x);
  Row norm(const Matrix& w, std::span<const double> x) const;
  Outcome embed(int32_t token_id, int32_t slot) const;
  Row rotated_heads(std::span<const double> x, const Matrix* norm_weight, int32_t position) const;
  Row attend(const Row& q, int32_t layer, std::span<const int32_t> kv_slots) const;
  Outcome mixture(int32_t layer, int32_t slot, const Row& x, std::span<const double> logits) const;
  Row experts(int32_t layer, int32_t slot, const Row& x, std::span<const double> logits) const;

  const Matrix& weight(WeightRole role, int32_t layer = -1, int32_t expert = -1) const;
  const LoraPair* lora(int32_t slot, int32_t layer, LoraTarget target) const;

  const ModelConfig config_;
  const std::vector<std::shared_ptr<const Adapter>> adapters_;
  const int32_t kv_block_size_;
  cpu::ThreadPool pool_;
  std::map<std::tuple<WeightRole, int32_t, int32_t>, Matrix> weights_;  // role, layer, expert
  std::map<std::pair<int32_t, int32_t>, std::pair<Row, Row>> kv_;       // layer, KV slot

  // Of the step that is going on.
  const ForwardBatch* batch_ = nullptr;
  const Stages* given_ = nullptr;  // null: runs by itself
  StageErrors errors_;
  Stages made_;
};

}  // namespace braid::test

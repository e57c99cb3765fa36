#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter_slots.h"
#include "base/ids.h"
#include "batch/forward_batch.h"
#include "cpu/thread_pool.h"
#include "kv/kv_cache.h"
#include "model/model.h"
#include "ops/context.h"

namespace braid::test {

struct Sequence {
  std::vector<int32_t> token_ids;
  int32_t adapter_slot = kNoAdapter;
};

// One part of a step: that many tokens of that sequence, from where it stands.
struct Chunk {
  int32_t sequence = 0;
  int32_t num_tokens = 0;
  bool is_decode = false;  // tokens of a reply: these chunks stand in front
};
using Schedule = std::vector<std::vector<Chunk>>;  // chunks of each step

// `length` random tokens of the vocabulary.
std::vector<int32_t> random_tokens(const ModelConfig& config, int32_t length, uint64_t seed);

// Every sequence whole, all in one step.
Schedule all_at_once(const std::vector<Sequence>& sequences);

// Steps of up to `chunk` tokens of every unfinished sequence; those with an odd index start a step
// later each.
Schedule chunked(const std::vector<Sequence>& sequences, int32_t chunk);

// The same of all but the last num_decodes tokens of each sequence, which decode one by one.
Schedule prompts_and_replies(const std::vector<Sequence>& sequences, int32_t chunk,
                             int32_t num_decodes);

struct StepOptions {
  int32_t kv_block_size = 4;
  bool only_last_rows = false;  // logits of the last row of each chunk alone, or of every row
};

// Runs a step, and returns the logits [batch.logits_token.size(), vocab_size].
using Forward = std::function<std::vector<float>(const ForwardBatch&)>;

// KV blocks that run_steps hands out of: some belong to nobody.
int32_t num_kv_blocks(const std::vector<Sequence>& sequences, int32_t kv_block_size);

// Hands the steps of a schedule to `forward` as an engine would, with scattered KV blocks. Returns
// the logits [n, vocab_size] asked for of each sequence.
std::vector<std::vector<float>> run_steps(const std::vector<Sequence>& sequences,
                                          const Schedule& schedule, const StepOptions& options,
                                          const Forward& forward);

// Drives Model::forward with a cache and logits that start as NaN.
class StepRunner {
 public:
  StepRunner(Model& model, int32_t num_threads, ops::Backend backend = ops::Backend::kCpu,
             int32_t kv_block_size = 4, Rounding rounding = Rounding::kNone);

  // Logits of every row, or of the last row of each chunk alone.
  void ask_for_last_rows(bool only_last) { options_.only_last_rows = only_last; }

  // The logits [n, vocab_size] asked for of each sequence. `adapters` may be null.
  std::vector<std::vector<float>> run(const std::vector<Sequence>& sequences,
                                      const Schedule& schedule, const AdapterSlots* adapters);

 private:
  Model& model_;
  cpu::ThreadPool pool_;
  ops::Context context_;
  StepOptions options_;
};

}  // namespace braid::test

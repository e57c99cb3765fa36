#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter_slots.h"
#include "base/ids.h"
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
};
using Schedule = std::vector<std::vector<Chunk>>;  // chunks of each step

// `length` random tokens of the vocabulary.
std::vector<int32_t> random_tokens(const ModelConfig& config, int32_t length, uint64_t seed);

// Every sequence whole, all in one step.
Schedule all_at_once(const std::vector<Sequence>& sequences);

// Steps of up to `chunk` tokens of every unfinished sequence; those with an odd index start a step
// later each.
Schedule chunked(const std::vector<Sequence>& sequences, int32_t chunk);

// Drives Model::forward the way an engine does, with KV blocks that are handed out scattered, a
// cache and logits that start as NaN.
class StepRunner {
 public:
  StepRunner(Model& model, int32_t num_threads, ops::Backend backend = ops::Backend::kCpu,
             int32_t kv_block_size = 4);

  // Logits of every row, or of the last row of each chunk alone.
  void ask_for_last_rows(bool only_last) { only_last_rows_ = only_last; }

  // The logits [n, vocab_size] asked for of each sequence. `adapters` may be null.
  std::vector<std::vector<float>> run(const std::vector<Sequence>& sequences,
                                      const Schedule& schedule, const AdapterSlots* adapters);

 private:
  Model& model_;
  cpu::ThreadPool pool_;
  ops::Context context_;
  int32_t kv_block_size_;
  bool only_last_rows_ = false;
};

}  // namespace braid::test

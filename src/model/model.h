#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "adapter/adapter_slots.h"
#include "base/result.h"
#include "batch/forward_batch.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_source.h"
#include "kv/kv_cache.h"
#include "ops/context.h"

namespace braid {

// A loaded model: weights and the order of operations over them. Stateless between steps; the KV
// cache holds what a sequence remembers. Used by one thread at a time.
class Model {
 public:
  // (done, total) in bytes or matrices, from the loading thread.
  using Progress = std::function<void(int64_t done, int64_t total)>;

  // Errors  those of WeightSource, with the tensor's name
  static Result<std::unique_ptr<Model>> load(const ModelConfig& config, WeightSource& source,
                                             const Progress& progress = {});
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;

  // Bytes one decode step reads at least: every weight once (embedding rows aside), experts only as
  // far as `num_pairs` distinct ones can be touched. The floor of `braid bench decode`.
  virtual size_t step_bytes(int64_t num_tokens) const = 0;

  // Runs the tokens of a step: writes their keys and values into the cache and the wanted rows'
  // logits, [batch.logits_token.size(), vocab_size]. `adapters` is null for a base-only batch.
  virtual void forward(const ops::Context& context, const ForwardBatch& batch,
                       const AdapterSlots* adapters, KvCache& kv, float* logits) = 0;
};

}  // namespace braid

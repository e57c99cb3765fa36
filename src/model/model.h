#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

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

  // A named intermediate of a step, for debugging: layer (-1 before the first), name ("embedding",
  // "attention_out", "moe_out", "mlp_out"), values [num_tokens, cols]. Called from forward().
  using Tap = std::function<void(int32_t layer, std::string_view what,
                                 std::span<const float> values, int64_t cols)>;

  // Errors  those of WeightSource, with the tensor's name
  static Result<std::unique_ptr<Model>> load(const ModelConfig& config, WeightSource& source,
                                             const Progress& progress = {});
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;

  // Bytes of weights a decode step of num_tokens base tokens has to read: every matrix with its
  // scales once, of the experts as many as random routing touches (step_bytes.h). The floor of
  // `braid bench decode`; adapters come on top (adapter_step_bytes).
  virtual size_t step_bytes(int64_t num_tokens) const = 0;

  // Listens to the steps that follow; an empty function stops it. A model without taps ignores it.
  virtual void set_tap(Tap) {}

  // Runs the tokens of a step: writes their keys and values into the cache and the wanted rows'
  // logits, [batch.logits_token.size(), vocab_size]. `adapters` may be null for a base-only batch.
  // Throws InternalError where the batch contradicts itself (batch/check_batch.h).
  virtual void forward(const ops::Context& context, const ForwardBatch& batch,
                       const AdapterSlots* adapters, KvCache& kv, float* logits) = 0;
};

}  // namespace braid

#pragma once

#include <memory>
#include <vector>

#include "kv/kv_cache.h"
#include "model/model.h"
#include "model/runner.h"
#include "ops/context.h"

namespace braid {

// A model over the ops of the CPU, with its KV cache in host memory.
class CpuRunner final : public Runner {
 public:
  // What `context` points to must outlive the runner. Throws std::bad_alloc when the system refuses
  // the cache's memory.
  CpuRunner(std::unique_ptr<Model> model, const ops::Context& context, const KvCacheShape& kv_shape)
      : model_(std::move(model)), context_(context), kv_(kv_shape) {}

  const ModelConfig& config() const override { return model_->config(); }
  size_t step_bytes(int64_t num_tokens) const override { return model_->step_bytes(num_tokens); }
  using Runner::forward;
  // Picks nothing.
  std::span<const StepRow> forward(const ForwardBatch& batch, const AdapterSlots* adapters,
                                   std::span<const Pick> picks) override;

 private:
  std::unique_ptr<Model> model_;
  ops::Context context_;
  KvCache kv_;
  std::vector<float> logits_;  // grows only
  std::vector<StepRow> rows_;
};

}  // namespace braid

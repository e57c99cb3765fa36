#include "model/cpu_runner.h"

#include <algorithm>

namespace braid {

std::span<const StepRow> CpuRunner::forward(const ForwardBatch& batch, const AdapterSlots* adapters,
                                            std::span<const Pick> /*picks*/) {
  const auto vocab_size = static_cast<size_t>(config().vocab_size);
  const size_t num_rows = batch.logits_token.size();
  logits_.resize(std::max(logits_.size(), num_rows * vocab_size));
  model_->forward(context_, batch, adapters, kv_, logits_.data());
  rows_.clear();
  for (size_t i = 0; i < num_rows; ++i)
    rows_.push_back({.logits = std::span(logits_).subspan(i * vocab_size, vocab_size)});
  return rows_;
}

}  // namespace braid

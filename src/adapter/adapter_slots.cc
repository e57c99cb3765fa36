#include "adapter/adapter_slots.h"

#include <utility>

#include "base/check.h"

namespace braid {

AdapterSlots::AdapterSlots(int32_t num_slots, int32_t num_layers) {
  BRAID_CHECK_GE(num_slots, 0);
  BRAID_CHECK_GE(num_layers, 0);
  const size_t slots = static_cast<size_t>(num_slots), layers = static_cast<size_t>(num_layers);
  adapters_.resize(slots);
  linear_.resize(layers * kNumLoraTargets * slots);
  experts_.resize(layers * slots);
  lm_head_.resize(slots);
  embedding_.resize(slots);
  num_layers_ = num_layers;
}

void AdapterSlots::set(int32_t slot, std::shared_ptr<const Adapter> adapter) {
  BRAID_CHECK_GE(slot, 0);
  BRAID_CHECK_LT(slot, num_slots());
  if (adapter) BRAID_CHECK_EQ(adapter->layers.size(), static_cast<size_t>(num_layers_));
  const size_t slots = adapters_.size();
  for (size_t layer = 0; layer < static_cast<size_t>(num_layers_); ++layer) {
    const LayerLora* from = adapter ? &adapter->layers[layer] : nullptr;
    for (size_t target = 0; target < kNumLoraTargets; ++target) {
      linear_[(layer * kNumLoraTargets + target) * slots + slot] =
          from ? from->linear[target] : LoraPair{};
    }
    experts_[layer * slots + slot] =
        from && !from->experts.empty() ? from->experts.data() : nullptr;
  }
  lm_head_[slot] = adapter ? adapter->lm_head : LoraPair{};
  embedding_[slot] = adapter ? adapter->embedding : EmbeddingLora{};
  adapters_[slot] = std::move(adapter);
}

const LoraPair* AdapterSlots::linear(int32_t layer, LoraTarget target) const {
  BRAID_CHECK_GE(layer, 0);
  BRAID_CHECK_LT(layer, num_layers_);
  const size_t row = static_cast<size_t>(layer) * kNumLoraTargets + static_cast<size_t>(target);
  return linear_.data() + row * adapters_.size();
}

const ExpertLora* const* AdapterSlots::experts(int32_t layer) const {
  BRAID_CHECK_GE(layer, 0);
  BRAID_CHECK_LT(layer, num_layers_);
  return experts_.data() + static_cast<size_t>(layer) * adapters_.size();
}

const LoraPair* AdapterSlots::lm_head() const { return lm_head_.data(); }

const EmbeddingLora* AdapterSlots::embedding() const { return embedding_.data(); }

}  // namespace braid

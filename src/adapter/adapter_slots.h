#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "adapter/adapter.h"

namespace braid {

// The adapters a step may use, by slot, as arrays the kernels index with `adapter_slot_of_token`.
// Used by the engine's thread alone.
class AdapterSlots {
 public:
  AdapterSlots(int32_t num_slots, int32_t num_layers);

  int32_t num_slots() const { return static_cast<int32_t>(adapters_.size()); }

  // Puts an adapter into a slot, or empties it (null). The slot must not be in use by a running
  // step.
  void set(int32_t slot, std::shared_ptr<const Adapter> adapter);
  const std::shared_ptr<const Adapter>& get(int32_t slot) const { return adapters_[slot]; }

  // [num_slots] each; rank 0 or null where a slot's adapter leaves the module alone.
  const LoraPair* linear(int32_t layer, LoraTarget target) const;
  const ExpertLora* const* experts(int32_t layer) const;
  const LoraPair* lm_head() const;
  const EmbeddingLora* embedding() const;

 private:
  std::vector<std::shared_ptr<const Adapter>> adapters_;  // [num_slots]
  std::vector<LoraPair> linear_;            // [num_layers, kNumLoraTargets, num_slots]
  std::vector<const ExpertLora*> experts_;  // [num_layers, num_slots]
  std::vector<LoraPair> lm_head_;           // [num_slots]
  std::vector<EmbeddingLora> embedding_;    // [num_slots]
  int32_t num_layers_ = 0;
};

}  // namespace braid

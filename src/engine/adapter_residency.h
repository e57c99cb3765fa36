#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "adapter/adapter_slots.h"

namespace braid {

// Which adapter stands in which slot. Adapters of equal content share a slot. A slot in use by a
// running request keeps its adapter; of the others the one used longest ago makes room.
class AdapterResidency {
 public:
  AdapterResidency(int32_t num_slots, int32_t num_layers);

  // The adapter's slot with one user more; empty when every slot is in use by another adapter.
  std::optional<int32_t> acquire(const std::shared_ptr<const Adapter>& adapter);

  // One user less. The adapter stays until another needs the slot.
  void release(int32_t slot);

  // Empties unused slots whose adapter nobody else holds: it was removed from the engine.
  void drop_removed();

  const AdapterSlots& slots() const { return slots_; }

  // Whether a slot has that content, in use or not.
  bool holds(const AdapterHash& hash) const;

  // Of the adapters in slots.
  std::vector<AdapterHash> hashes() const;

  // Slots that hold an adapter, in use or not.
  int32_t num_used() const { return num_used_; }

  // Rises whenever a slot gets another content.
  int64_t num_changes() const { return num_changes_; }

 private:
  struct Use {
    int32_t num_users = 0;
    int64_t last_use = -1;
  };

  void set(int32_t slot, std::shared_ptr<const Adapter> adapter);

  AdapterSlots slots_;
  int32_t num_used_ = 0;
  int64_t num_changes_ = 0;
  std::vector<Use> uses_;  // [num_slots]
  int64_t clock_ = 0;
};

}  // namespace braid

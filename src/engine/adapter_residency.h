#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "adapter/adapter_slots.h"
#include "adapter/slot_memory.h"

namespace braid {

// Which adapter stands in which slot. Adapters of equal content share a slot. A slot in use by a
// running request keeps its adapter; of the others those used longest ago make room.
//
// On a device slots have memory, which may be full before they are. An adapter that comes into a
// slot is then on its way for a while; until it is there, nobody gets the slot, and no other
// adapter takes it away.
class AdapterResidency {
 public:
  // `memory` outlives this and is emptied; null: factors are read from where they are.
  AdapterResidency(int32_t num_slots, int32_t num_layers, SlotMemory* memory = nullptr);

  // The adapter's slot with one user more. Empty when there is no room beside the adapters in use
  // and on their way, or this one is on its way now: then ask again.
  std::optional<int32_t> acquire(const std::shared_ptr<const Adapter>& adapter);

  // Waits for an adapter that is on its way; false: none is.
  bool wait_for_one();

  // One user less. The adapter stays until another needs the slot.
  void release(int32_t slot);

  // Empties unused slots whose adapter nobody else holds: it was removed from the engine.
  void drop_removed();

  const AdapterSlots& slots() const { return slots_; }

  // Whether a slot has that content, in use or not, or is getting it.
  bool holds(const AdapterHash& hash) const { return find(hash).has_value(); }

  // Of the adapters in slots.
  std::vector<AdapterHash> hashes() const;

  // Slots that hold an adapter, in use or not.
  int32_t num_used() const { return num_used_; }

  // Rises whenever a slot gets another content.
  int64_t num_changes() const { return num_changes_; }

  // What has happened so far.
  struct Counts {
    int64_t swaps = 0;         // adapters that came into a slot
    int64_t evictions = 0;     // of others, that made room for them
    int64_t copied_bytes = 0;  // of factors that came into memory beside the slots
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Use {
    int32_t num_users = 0;
    int64_t last_use = -1;
  };

  std::optional<int32_t> find(const AdapterHash& hash) const;
  bool is_ready(int32_t slot) const { return memory_ == nullptr || memory_->is_ready(slot); }
  std::optional<int32_t> bring(const std::shared_ptr<const Adapter>& adapter);
  void set(int32_t slot, std::shared_ptr<const Adapter> adapter);

  AdapterSlots slots_;
  SlotMemory* memory_;
  int32_t num_used_ = 0;
  int64_t num_changes_ = 0;
  Counts counts_;
  std::vector<Use> uses_;  // [num_slots]
  int64_t clock_ = 0;
};

}  // namespace braid

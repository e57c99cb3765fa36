#pragma once

#include <cstdint>
#include <span>

#include "adapter/adapter.h"

namespace braid {

// What an adapter needs besides a slot before a step can use it: memory of a device. Used by the
// engine's thread alone.
class SlotMemory {
 public:
  virtual ~SlotMemory() = default;

  // Whether the adapter would find room if these slots were emptied. With all slots emptied it
  // always does.
  virtual bool has_room(const Adapter& adapter, std::span<const int32_t> emptied) const = 0;

  // Begins to bring an adapter for which there is room into an empty slot. It stays alive until the
  // slot is emptied.
  virtual void fill(int32_t slot, const Adapter& adapter) = 0;

  // Lets go of what is in a slot that no later step uses, if anything is. Waits for it where it is
  // not ready.
  virtual void empty(int32_t slot) = 0;

  // All of what is in the slot has arrived.
  virtual bool is_ready(int32_t slot) const = 0;
  virtual void wait_until_ready(int32_t slot) const = 0;
};

}  // namespace braid

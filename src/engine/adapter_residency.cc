#include "engine/adapter_residency.h"

#include "base/check.h"

namespace braid {

AdapterResidency::AdapterResidency(int32_t num_slots, int32_t num_layers)
    : slots_(num_slots, num_layers), uses_(num_slots) {}

std::optional<int32_t> AdapterResidency::acquire(const std::shared_ptr<const Adapter>& adapter) {
  std::optional<int32_t> slot;
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    const auto& resident = slots_.get(i);
    if (resident && resident->hash == adapter->hash) {
      slot = i;
      break;
    }
    if (uses_[i].num_users == 0 && (!slot || uses_[i].last_use < uses_[*slot].last_use)) slot = i;
  }
  if (!slot) return std::nullopt;
  const auto& resident = slots_.get(*slot);
  if (!resident || resident->hash != adapter->hash) set(*slot, adapter);
  ++uses_[*slot].num_users;
  uses_[*slot].last_use = clock_++;
  return slot;
}

void AdapterResidency::set(int32_t slot, std::shared_ptr<const Adapter> adapter) {
  num_used_ += (adapter ? 1 : 0) - (slots_.get(slot) ? 1 : 0);
  ++num_changes_;
  slots_.set(slot, std::move(adapter));
}

void AdapterResidency::release(int32_t slot) {
  BRAID_CHECK_GE(slot, 0);
  BRAID_CHECK_LT(slot, slots_.num_slots());
  BRAID_CHECK_GE(uses_[slot].num_users, 1);
  --uses_[slot].num_users;
}

void AdapterResidency::drop_removed() {
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    if (uses_[i].num_users > 0 || !slots_.get(i) || slots_.get(i).use_count() > 1) continue;
    set(i, nullptr);
    uses_[i].last_use = -1;
  }
}

bool AdapterResidency::holds(const AdapterHash& hash) const {
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    if (slots_.get(i) && slots_.get(i)->hash == hash) return true;
  }
  return false;
}

std::vector<AdapterHash> AdapterResidency::hashes() const {
  std::vector<AdapterHash> hashes;
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    if (slots_.get(i)) hashes.push_back(slots_.get(i)->hash);
  }
  return hashes;
}

}  // namespace braid

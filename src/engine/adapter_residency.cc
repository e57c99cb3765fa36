#include "engine/adapter_residency.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/check.h"

namespace braid {

AdapterResidency::AdapterResidency(int32_t num_slots, int32_t num_layers, SlotMemory* memory)
    : slots_(num_slots, num_layers), memory_(memory), uses_(num_slots) {
  for (int32_t i = 0; memory_ != nullptr && i < num_slots; ++i) memory_->empty(i);
}

std::optional<int32_t> AdapterResidency::find(const AdapterHash& hash) const {
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    if (slots_.get(i) && slots_.get(i)->hash == hash) return i;
  }
  return std::nullopt;
}

std::optional<int32_t> AdapterResidency::acquire(const std::shared_ptr<const Adapter>& adapter) {
  auto slot = find(adapter->hash);
  if (!slot) slot = bring(adapter);
  if (!slot) return std::nullopt;
  uses_[*slot].last_use = clock_++;
  if (!is_ready(*slot)) return std::nullopt;
  ++uses_[*slot].num_users;
  return slot;
}

// Empties as few slots as make room, those used longest ago; none when all of them would not do.
std::optional<int32_t> AdapterResidency::bring(const std::shared_ptr<const Adapter>& adapter) {
  std::vector<int32_t> unused;
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    if (uses_[i].num_users == 0 && is_ready(i)) unused.push_back(i);
  }
  std::ranges::stable_sort(unused, {}, [&](int32_t slot) { return uses_[slot].last_use; });
  const auto is_empty = [&](int32_t slot) { return slots_.get(slot) == nullptr; };
  const auto num_empty = static_cast<size_t>(std::ranges::count_if(unused, is_empty));
  for (size_t num_emptied = std::max<size_t>(num_empty, 1); num_emptied <= unused.size();
       ++num_emptied) {
    const auto emptied = std::span<const int32_t>(unused).first(num_emptied);
    if (memory_ != nullptr && !memory_->has_room(*adapter, emptied)) continue;
    counts_.evictions +=
        static_cast<int64_t>(emptied.size()) - std::ranges::count_if(emptied, is_empty);
    for (const int32_t slot : emptied) set(slot, nullptr);
    set(emptied.front(), adapter);
    ++counts_.swaps;
    if (memory_ != nullptr) counts_.copied_bytes += static_cast<int64_t>(adapter->bytes);
    return emptied.front();
  }
  return std::nullopt;
}

bool AdapterResidency::wait_for_one() {
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    if (is_ready(i)) continue;
    memory_->wait_until_ready(i);
    return true;
  }
  return false;
}

void AdapterResidency::set(int32_t slot, std::shared_ptr<const Adapter> adapter) {
  const bool was_used = slots_.get(slot) != nullptr;
  if (!was_used && !adapter) return;
  if (memory_ != nullptr && was_used) memory_->empty(slot);
  if (memory_ != nullptr && adapter) memory_->fill(slot, *adapter);
  if (!adapter) uses_[slot].last_use = -1;
  num_used_ += (adapter ? 1 : 0) - (was_used ? 1 : 0);
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
  }
}

std::vector<AdapterHash> AdapterResidency::hashes() const {
  std::vector<AdapterHash> hashes;
  for (int32_t i = 0; i < slots_.num_slots(); ++i) {
    if (slots_.get(i)) hashes.push_back(slots_.get(i)->hash);
  }
  return hashes;
}

}  // namespace braid

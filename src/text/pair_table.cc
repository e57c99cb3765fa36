#include "text/pair_table.h"

#include <bit>
#include <utility>

#include "base/check.h"

namespace braid::text {

PairTable::PairTable(size_t num_pairs)
    : entries_(std::bit_ceil(num_pairs * 2 + 2)), mask_(entries_.size() - 1) {}

bool PairTable::insert(int32_t left, int32_t right, Merge merge) {
  BRAID_CHECK(left >= 0 && right >= 0);
  if ((size_ + 1) * 2 > entries_.size()) grow();
  const uint64_t key = key_of(left, right);
  size_t i = place_of(key);
  while (entries_[i].key != kFree) {
    if (entries_[i].key == key) return false;
    i = (i + 1) & mask_;
  }
  entries_[i] = {key, merge};
  ++size_;
  return true;
}

void PairTable::grow() {
  std::vector<Entry> old = std::exchange(entries_, std::vector<Entry>(entries_.size() * 2));
  mask_ = entries_.size() - 1;
  for (const Entry& entry : old) {
    if (entry.key == kFree) continue;
    size_t i = place_of(entry.key);
    while (entries_[i].key != kFree) i = (i + 1) & mask_;
    entries_[i] = entry;
  }
}

}  // namespace braid::text

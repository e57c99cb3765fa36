#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace braid::text {

// What merging two neighbours gives.
struct Merge {
  int32_t rank;  // lower goes first
  int32_t token;
};

// A hash table from a pair of token ids (>= 0) to its merge: open addressing with linear probing,
// at most half full. The merge loop is bound by these look-ups.
class PairTable {
 public:
  PairTable() : PairTable(0) {}

  // Room for num_pairs entries; more still fit, at the cost of a rebuild.
  explicit PairTable(size_t num_pairs);

  // Adds a pair. False, and no change, when it is there already.
  bool insert(int32_t left, int32_t right, Merge merge);

  // The merge of a pair, or null. Valid until the next insert.
  const Merge* find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = place_of(key);; i = (i + 1) & mask_) {
      if (entries_[i].key == key) return &entries_[i].merge;
      if (entries_[i].key == kFree) return nullptr;
    }
  }

  size_t size() const { return size_; }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};  // no key: ids are not negative

  struct Entry {
    uint64_t key = kFree;
    Merge merge = {};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  }
  size_t place_of(uint64_t key) const {
    // Fibonacci hashing; the high bits of the product are the mixed ones.
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask_;
  }
  void grow();

  std::vector<Entry> entries_;  // a power of two
  size_t mask_;
  size_t size_ = 0;
};

}  // namespace braid::text

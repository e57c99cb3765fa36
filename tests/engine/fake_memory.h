#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>

#include "adapter/slot_memory.h"
#include "base/check.h"

namespace braid::test {

// Memory of slots that is only counted. An adapter takes as many pages as sizes[] says of the low
// half of its hash, or one; it is ready when pass_time() was called `delay` times.
class FakeMemory final : public SlotMemory {
 public:
  explicit FakeMemory(int64_t num_pages, int delay = 0) : num_free_(num_pages), delay_(delay) {}

  bool has_room(const Adapter& adapter, std::span<const int32_t> emptied) const override {
    int64_t num_free = num_free_;
    for (const int32_t slot : emptied) {
      if (const auto found = contents_.find(slot); found != contents_.end())
        num_free += found->second.num_pages;
    }
    return num_free >= pages_of(adapter);
  }
  void fill(int32_t slot, const Adapter& adapter) override {
    num_free_ -= pages_of(adapter);
    BRAID_CHECK_GE(num_free_, 0);
    BRAID_CHECK(contents_.emplace(slot, Content{pages_of(adapter), delay_}).second);
    ++num_fills;
  }
  void empty(int32_t slot) override {
    const auto found = contents_.find(slot);
    if (found == contents_.end()) return;
    num_free_ += found->second.num_pages;
    contents_.erase(found);
  }
  bool is_ready(int32_t slot) const override {
    const auto found = contents_.find(slot);
    return found == contents_.end() || found->second.delay == 0;
  }
  void wait_until_ready(int32_t slot) const override {
    contents_.at(slot).delay = 0;
    ++num_waits;
  }

  void pass_time() {
    for (auto& [slot, content] : contents_) content.delay = std::max(content.delay - 1, 0);
  }

  std::map<uint64_t, int64_t> sizes;  // pages
  int num_fills = 0;
  mutable int num_waits = 0;

 private:
  struct Content {
    int64_t num_pages = 0;
    int delay = 0;
  };

  int64_t pages_of(const Adapter& adapter) const {
    const auto found = sizes.find(adapter.hash.low);
    return found == sizes.end() ? 1 : found->second;
  }

  int64_t num_free_;
  mutable std::map<int32_t, Content> contents_;
  int delay_;
};

}  // namespace braid::test

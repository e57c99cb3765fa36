#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace braid::cpu {

// Tokens (or pairs) that share an adapter, laid side by side: those of slot `slot` are
// order[begin .. end). Only slots that are present appear, so the cost follows the batch and not
// the number of adapters loaded.
struct AdapterRun {
  int32_t slot = kNoAdapter;
  int32_t begin = 0;
  int32_t end = 0;
};

// Sorts the items [begin, end) of `order` by slot_of(item), stably, and appends one run for each
// slot but kNoAdapter.
template <class SlotOf>
void append_runs(std::vector<int32_t>& order, int32_t begin, int32_t end, const SlotOf& slot_of,
                 std::vector<AdapterRun>& runs) {
  std::stable_sort(order.begin() + begin, order.begin() + end,
                   [&](int32_t a, int32_t b) { return slot_of(a) < slot_of(b); });
  for (int32_t i = begin; i < end;) {
    const int32_t slot = slot_of(order[static_cast<size_t>(i)]);
    int32_t next = i + 1;
    while (next < end && slot_of(order[static_cast<size_t>(next)]) == slot) ++next;
    if (slot != kNoAdapter) runs.push_back({.slot = slot, .begin = i, .end = next});
    i = next;
  }
}

}  // namespace braid::cpu

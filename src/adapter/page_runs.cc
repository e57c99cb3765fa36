#include "adapter/page_runs.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace braid {

PageRuns::PageRuns(int64_t num_pages) : num_pages_(num_pages), num_free_(num_pages) {
  BRAID_CHECK_GE(num_pages, 0);
  if (num_pages > 0) free_.emplace(0, num_pages);
}

std::optional<int64_t> PageRuns::take(int64_t num_pages) {
  BRAID_CHECK_GE(num_pages, 1);
  const auto found =
      std::ranges::find_if(free_, [&](const auto& run) { return run.second >= num_pages; });
  if (found == free_.end()) return std::nullopt;
  const auto [first, available] = *found;
  free_.erase(found);
  if (available > num_pages) free_.emplace(first + num_pages, available - num_pages);
  num_free_ -= num_pages;
  return first;
}

void PageRuns::give_back(int64_t first, int64_t num_pages) {
  BRAID_CHECK_GE(first, 0);
  BRAID_CHECK_GE(num_pages, 1);
  BRAID_CHECK_LE(first + num_pages, num_pages_);
  const int64_t given = num_pages;
  const auto next = free_.lower_bound(first);
  if (next != free_.end()) BRAID_CHECK_LE(first + num_pages, next->first);
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    const int64_t end = previous->first + previous->second;
    BRAID_CHECK_LE(end, first);
    if (end == first) {
      first = previous->first;
      num_pages += previous->second;
      free_.erase(previous);
    }
  }
  if (next != free_.end() && first + num_pages == next->first) {
    num_pages += next->second;
    free_.erase(next);
  }
  free_.emplace(first, num_pages);
  num_free_ += given;
}

}  // namespace braid

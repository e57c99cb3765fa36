#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace braid {

// Runs of neighbouring pages out of one range of them. First fit; free neighbours become one run,
// so that what was given back whole can be taken whole, however it was cut before.
class PageRuns {
 public:
  explicit PageRuns(int64_t num_pages);

  // The first of num_pages >= 1 neighbours; empty when there is no such run.
  std::optional<int64_t> take(int64_t num_pages);

  // A run that take() gave.
  void give_back(int64_t first, int64_t num_pages);

  int64_t num_free() const { return num_free_; }

 private:
  std::map<int64_t, int64_t> free_;  // first page -> pages; no two runs touch
  int64_t num_pages_ = 0;
  int64_t num_free_ = 0;
};

}  // namespace braid

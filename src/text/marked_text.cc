#include "text/marked_text.h"

#include <algorithm>

namespace braid::text {

void MarkedText::append(std::string_view text, bool from_input) {
  if (text.empty()) return;
  const size_t begin = text_.size();
  text_ += text;
  if (!from_input) return;
  if (!input_.empty() && input_.back().end == begin) {
    input_.back().end = text_.size();
  } else {
    input_.push_back({begin, text_.size()});
  }
}

bool MarkedText::has_input(size_t begin, size_t end) const {
  // The first range that ends behind `begin` is the only one that can start first.
  const auto range = std::upper_bound(input_.begin(), input_.end(), begin,
                                      [](size_t at, const Range& r) { return at < r.end; });
  return range != input_.end() && range->begin < end;
}

}  // namespace braid::text

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

void MarkedText::append(const MarkedText& other) { append(other, 0, other.size()); }

void MarkedText::append(const MarkedText& other, size_t begin, size_t end) {
  const std::string_view all = other.text_;
  auto range = other.first_behind(begin);
  while (begin < end) {
    const size_t input_begin = range == other.input_.end() ? end : std::min(range->begin, end);
    if (begin < input_begin) append(all.substr(begin, input_begin - begin), false);
    begin = std::max(begin, input_begin);
    if (begin >= end) break;
    const size_t input_end = std::min(range->end, end);
    append(all.substr(begin, input_end - begin), true);
    begin = input_end;
    ++range;
  }
}

std::vector<Range>::const_iterator MarkedText::first_behind(size_t at) const {
  return std::upper_bound(input_.begin(), input_.end(), at,
                          [](size_t place, const Range& r) { return place < r.end; });
}

bool MarkedText::has_input(size_t begin, size_t end) const {
  const auto range = first_behind(begin);
  return range != input_.end() && range->begin < end;
}

}  // namespace braid::text

#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace braid {

StopMatcher::StopMatcher(std::span<const std::string> stops) {
  for (const std::string& stop : stops) {
    Pattern pattern = {.text = stop};
    pattern.failure.assign(stop.size(), 0);
    for (size_t i = 1; i < stop.size(); ++i) {
      int32_t length = pattern.failure[i - 1];
      while (length > 0 && stop[i] != stop[length]) length = pattern.failure[length - 1];
      pattern.failure[i] = length + (stop[i] == stop[length]);
    }
    patterns_.push_back(std::move(pattern));
  }
}

StopMatcher::Found StopMatcher::push(std::string_view piece, bool may_stop) {
  if (patterns_.empty()) return {.text = std::string(piece)};
  for (const char byte : piece) {
    held_.push_back(byte);
    std::optional<size_t> found;
    for (size_t index = 0; index < patterns_.size(); ++index) {
      auto& [text, failure, matched] = patterns_[index];
      while (matched > 0 && text[matched] != byte) matched = failure[matched - 1];
      matched += text[matched] == byte;
      if (matched < static_cast<int32_t>(text.size())) continue;
      matched = failure[matched - 1];
      if (may_stop && (!found || text.size() > patterns_[*found].text.size())) found = index;
    }
    if (found) {
      held_.resize(held_.size() - patterns_[*found].text.size());
      return {.text = std::exchange(held_, {}), .stop_index = found};
    }
  }
  int32_t num_held = 0;
  for (const Pattern& pattern : patterns_) num_held = std::max(num_held, pattern.num_matched);
  Found result = {.text = held_.substr(0, held_.size() - num_held)};
  held_.erase(0, result.text.size());
  return result;
}

std::string StopMatcher::flush() { return std::exchange(held_, {}); }

}  // namespace braid

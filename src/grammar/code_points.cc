#include "grammar/code_points.h"

#include <algorithm>
#include <string>

#include "text/utf8.h"

namespace braid::grammar {
namespace {

constexpr char32_t kLastCodePoint = 0x10FFFF;
constexpr char32_t kBeforeSurrogates = 0xD7FF;
constexpr char32_t kBehindSurrogates = 0xE000;

std::vector<ByteRange> sequence(const std::string& first, const std::string& last) {
  std::vector<ByteRange> out;
  for (size_t i = 0; i < first.size(); ++i)
    out.push_back({static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i])});
  return out;
}

}  // namespace

CodePointSet::CodePointSet(std::vector<CodePointRange> ranges) {
  std::vector<CodePointRange> scalars;
  for (auto [first, last] : ranges) {
    last = std::min(last, kLastCodePoint);
    const auto add = [&](char32_t from, char32_t to) {
      if (from <= to) scalars.push_back({from, to});
    };
    add(first, std::min(last, kBeforeSurrogates));
    add(std::max(first, kBehindSurrogates), last);
  }
  std::sort(scalars.begin(), scalars.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const CodePointRange& range : scalars) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
}

CodePointSet CodePointSet::all() { return CodePointSet({{0, kLastCodePoint}}); }

CodePointSet CodePointSet::complement() const {
  std::vector<CodePointRange> gaps;
  char32_t next = 0;
  for (const CodePointRange& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) gaps.push_back({next, kLastCodePoint});
  return CodePointSet(std::move(gaps));
}

CodePointSet CodePointSet::united(const CodePointSet& other) const {
  std::vector<CodePointRange> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CodePointSet(std::move(both));
}

CodePointSet CodePointSet::intersected(const CodePointSet& other) const {
  std::vector<CodePointRange> both;
  auto a = ranges_.begin();
  auto b = other.ranges_.begin();
  while (a != ranges_.end() && b != other.ranges_.end()) {
    const char32_t first = std::max(a->first, b->first);
    const char32_t last = std::min(a->last, b->last);
    if (first <= last) both.push_back({first, last});
    ++(a->last < b->last ? a : b);
  }
  return CodePointSet(std::move(both));
}

bool CodePointSet::contains(char32_t code_point) const {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), code_point,
                       [](char32_t value, const CodePointRange& r) { return value < r.first; });
  return after != ranges_.begin() && std::prev(after)->last >= code_point;
}

void append_utf8_sequences(CodePointRange range, std::vector<std::vector<ByteRange>>& out) {
  const auto [first, last] = range;
  for (const char32_t limit : {0x7Fu, 0x7FFu, 0xFFFFu}) {
    if (first <= limit && limit < last) {
      append_utf8_sequences({first, limit}, out);
      append_utf8_sequences({limit + 1, last}, out);
      return;
    }
  }
  // Where the leading parts differ, the trailing bytes must run through all of their values.
  if (last > 0x7F) {
    for (const int bits : {6, 12, 18}) {
      const char32_t mask = (char32_t{1} << bits) - 1;
      if ((first & ~mask) == (last & ~mask)) break;
      if ((first & mask) != 0) {
        append_utf8_sequences({first, first | mask}, out);
        append_utf8_sequences({(first | mask) + 1, last}, out);
        return;
      }
      if ((last & mask) != mask) {
        append_utf8_sequences({first, (last & ~mask) - 1}, out);
        append_utf8_sequences({last & ~mask, last}, out);
        return;
      }
    }
  }
  std::string low, high;
  text::append_utf8(low, first);
  text::append_utf8(high, last);
  out.push_back(sequence(low, high));
}

}  // namespace braid::grammar

#include "text/added_tokens.h"

#include <algorithm>

#include "base/check.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text {
namespace {

// The start of the last character before `end`, in well-formed text.
size_t char_before(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80);
  return end;
}

bool touches_word(std::string_view text, Range range) {
  if (range.begin > 0) {
    size_t at = char_before(text, range.begin);
    if (is_word_char(next_char(text, at))) return true;
  }
  if (range.end < text.size()) {
    size_t at = range.end;
    if (is_word_char(next_char(text, at))) return true;
  }
  return false;
}

// Moves the ends of a match over white space; not to the left of `least`.
Range with_white_space(std::string_view text, const AddedToken& token, size_t least, Range range) {
  while (token.lstrip && range.begin > least) {
    const size_t before = char_before(text, range.begin);
    size_t at = before;
    if (!is_white_space(next_char(text, at))) break;
    range.begin = std::max(before, least);
  }
  while (token.rstrip && range.end < text.size()) {
    size_t at = range.end;
    if (!is_white_space(next_char(text, at))) break;
    range.end = at;
  }
  return range;
}

}  // namespace

void AddedTokenFinder::add(const AddedToken& token, std::string_view content) {
  BRAID_CHECK(!content.empty());
  int32_t node = 0;
  for (const char c : content) {
    const int32_t byte = static_cast<uint8_t>(c);
    if (const Merge* edge = edges_.find(node, byte)) {
      node = edge->token;
      continue;
    }
    const auto child = static_cast<int32_t>(is_end_of_.size());
    edges_.insert(node, byte, {.rank = 0, .token = child});
    is_end_of_.push_back(nullptr);
    node = child;
  }
  if (!is_end_of_[node]) is_end_of_[node] = &token;
}

AddedTokenFinder::Match AddedTokenFinder::longest_at(std::string_view text, size_t at,
                                                     const MayBeSpecial& may_be_special) const {
  Match best;
  int32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const Merge* edge = edges_.find(node, static_cast<uint8_t>(text[i]));
    if (!edge) break;
    node = edge->token;
    const AddedToken* token = is_end_of_[node];
    if (token && (!token->special || may_be_special({at, i + 1}))) best = {token, i + 1};
  }
  return best;
}

void AddedTokenFinder::find(std::string_view text, const MayBeSpecial& may_be_special,
                            std::vector<TextPart>& parts) const {
  size_t done = 0;  // what lies before is in a part already
  for (size_t at = 0; at < text.size();) {
    const auto [token, end] = longest_at(text, at, may_be_special);
    if (!token) {
      ++at;
      continue;
    }
    Range range = {at, end};
    at = end;
    if (token->single_word && touches_word(text, range)) continue;
    range = with_white_space(text, *token, done, range);
    if (done < range.begin) parts.push_back({{done, range.begin}, nullptr});
    parts.push_back({range, token});
    done = range.end;
    at = std::max(at, done);
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, nullptr});
}

}  // namespace braid::text

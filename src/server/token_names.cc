#include "server/token_names.h"

#include <algorithm>
#include <array>

namespace braid::server {

const TokenNames::Name& TokenNames::of(int32_t token) {
  const auto [entry, is_new] = names_.try_emplace(token);
  if (is_new) {
    entry->second.bytes = model_.token_bytes(token);
    const std::array<int32_t, 1> one = {token};
    entry->second.text = model_.detokenize(one, false).value_or(entry->second.bytes);
  }
  return entry->second;
}

int64_t count_characters(std::string_view utf8) {
  return std::ranges::count_if(utf8, [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace braid::server

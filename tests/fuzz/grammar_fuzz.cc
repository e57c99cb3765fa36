// A hostile schema, or behind a first byte '/' a hostile regular expression: a message, or a
// grammar in which every walk along its masks can go on until it may end, and JSON is what comes
// out.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "grammar/compile.h"
#include "grammar/grammar.h"

namespace {

using namespace braid;

std::shared_ptr<const grammar::Vocabulary> make_vocabulary() {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
  for (const char* piece : {"\":", "\",\"", "{\"", "}}", "]]", "[[", "true", "ab", "aaaa", "a\"",
                            "00", "\n  ", "\xC3\xA9", "\xE4\xB8", "\\u"})
    pieces.emplace_back(piece);
  return std::make_shared<const grammar::Vocabulary>(
      static_cast<int32_t>(pieces.size()),
      [&](int32_t id) { return std::string_view(pieces[static_cast<size_t>(id)]); });
}

void walk(const std::shared_ptr<grammar::Grammar>& compiled, uint64_t seed, bool is_json) {
  std::mt19937_64 random(seed);
  grammar::Matcher matcher(compiled);
  std::string text;
  std::vector<int32_t> allowed;
  for (int i = 0; i < 40 && !matcher.is_over(); ++i) {
    const auto mask = matcher.mask();
    if (!mask) return;  // too ambiguous
    allowed.clear();
    for (int32_t token = 0; token < compiled->vocabulary().size(); ++token) {
      if ((*mask)->allows(token)) allowed.push_back(token);
    }
    BRAID_CHECK(!allowed.empty());
    const int32_t token = allowed[random() % allowed.size()];
    BRAID_CHECK(matcher.push(token));
    text += compiled->vocabulary().piece(token);
  }
  if (is_json && matcher.may_end()) {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    BRAID_CHECK(!json.is_discarded());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto vocabulary = make_vocabulary();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const bool is_regex = text.starts_with('/');
  const auto compiled = is_regex ? grammar::compile_regex(text.substr(1), vocabulary)
                                 : grammar::compile_json_schema(text, vocabulary);
  if (!compiled) {
    BRAID_CHECK(!compiled.error().message.empty());
    return 0;
  }
  for (uint64_t seed = 0; seed < 2; ++seed) walk(*compiled, seed, !is_regex);
  return 0;
}

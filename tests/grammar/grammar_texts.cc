#include "tests/grammar/grammar_texts.h"

#include <fmt/format.h>

#include <random>
#include <stdexcept>

namespace braid::test {

using grammar::Grammar;
using grammar::Mask;
using grammar::Matcher;
using grammar::Vocabulary;

std::shared_ptr<const Vocabulary> byte_vocabulary(const std::vector<std::string>& longer_tokens) {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
  pieces.insert(pieces.end(), longer_tokens.begin(), longer_tokens.end());
  pieces.emplace_back();
  return std::make_shared<const Vocabulary>(static_cast<int32_t>(pieces.size()), [&](int32_t id) {
    return std::string_view(pieces[id]);
  });
}

std::shared_ptr<const Vocabulary> small_vocabulary() {
  std::vector<std::string> tokens = {
      "\":",      "\": ",         "\",",      "\", \"",    "\"}",    "\"]",  "{\"",      "[\"",
      "[[",       "]]",           "}}",       "{}",        "[]",     "],",   "},",       "},{",
      "null",     "true",         "false",    " true",     " null",  "\\n",  "\\\"",     "\\u",
      "\\u00",    "00",           "000",      "12",        "3.1",    "1e",   "-1",       "0.",
      "  ",       "    ",         "\n",       "\n  ",      "\n    ", ",\n",  "abc",      " the",
      "the",      "name",         "\"name\"", "\"name",    "age",    "kind", "\xC3\xA9", "\xE4\xB8",
      "\xB8\xAD", "\xF0\x9F\x98", "\x80\xE4", "a\xC3",     "aa",     "aaa",  "aaaa",     "aaaaaaaa",
      "ab",       "ba",           "2024-",    "-02-",      "T12:",   "a\"b", "x\":1",    "x\": [",
      "\"a\":\"", "value\":",     "next",     "\"next\":{"};
  for (const char first : std::string("abcxyz019 -")) {
    for (const char second : std::string("abcxyz019 -\"}],:")) tokens.push_back({first, second});
  }
  return byte_vocabulary(tokens);
}

bool accepts(const grammar::CompiledGrammar& grammar, std::string_view text) {
  if (!grammar) throw std::runtime_error(grammar.error().message);
  Matcher matcher(*grammar);
  for (const char c : text) {
    if (!matcher.push(static_cast<uint8_t>(c))) return false;
  }
  return matcher.may_end();
}

RandomText random_text(const std::shared_ptr<Grammar>& grammar, uint64_t seed, int32_t max_tokens,
                       double end_share) {
  std::mt19937_64 random(seed);
  Matcher matcher(grammar);
  RandomText out;
  std::vector<int32_t> allowed;
  for (int32_t i = 0; i < max_tokens; ++i) {
    const double draw = static_cast<double>(random() >> 11) * 0x1p-53;
    if (matcher.is_over() || (matcher.may_end() && draw < end_share)) {
      out.is_whole = true;
      return out;
    }
    const auto mask = matcher.mask();
    if (!mask) throw std::runtime_error(mask.error().message);
    allowed.clear();
    for (int32_t token = 0; token < grammar->vocabulary().size(); ++token) {
      if ((*mask)->allows(token)) allowed.push_back(token);
    }
    if (allowed.empty()) throw std::runtime_error("dead end behind '" + out.text + "'");
    if ((*mask)->may_end != matcher.may_end()) throw std::runtime_error("two ends");
    const int32_t token = allowed[random() % allowed.size()];
    if (!matcher.push(token)) throw std::runtime_error("refused behind '" + out.text + "'");
    out.tokens.push_back(token);
    out.text += grammar->vocabulary().piece(token);
  }
  out.is_whole = matcher.may_end();
  return out;
}

std::string why_mask_is_wrong(const std::shared_ptr<Grammar>& grammar,
                              const std::vector<int32_t>& tokens) {
  Matcher matcher(grammar);
  for (const int32_t token : tokens) {
    if (!matcher.push(token)) return "refuses a token";
  }
  const auto mask = matcher.mask();
  if (!mask) return mask.error().message;
  for (int32_t token = 0; token < grammar->vocabulary().size(); ++token) {
    Matcher copy = matcher;
    const bool is_allowed = copy.push(token);
    if ((*mask)->allows(token) != is_allowed)
      return fmt::format("token {} '{}' is {}", token, grammar->vocabulary().piece(token),
                         is_allowed ? "missing" : "wrongly there");
  }
  return {};
}

}  // namespace braid::test

// Reads tiktoken files: one token a line, as base64 bytes and a rank that is also its id. There are
// no merges: two neighbours merge when their joined bytes are a token, lowest rank first.
//
// Source: openai/tiktoken 0.9; tokenization_kimi.py of Kimi-K2.

#include "text/tiktoken.h"

#include <array>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "base/json.h"
#include "text/json_fields.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace braid::text {
namespace {

constexpr std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kKimiPattern =
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Finding the merges costs the square of a token's length, over all tokens together at most this.
// Real vocabularies are at a few tens of millions.
constexpr uint64_t kMaxSquaredBytes = uint64_t{1} << 31;

constexpr std::array<int8_t, 256> make_base64_values() {
  std::array<int8_t, 256> values = {};
  values.fill(-1);
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kDigits.size(); ++i) {
    values[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  }
  return values;
}
constexpr auto kBase64Values = make_base64_values();

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) text.remove_suffix(1), ++padding;
  std::string bytes;
  uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text) {
    const int8_t value = kBase64Values[static_cast<uint8_t>(c)];
    if (value < 0) return std::nullopt;
    bits = (bits << 6) | static_cast<uint32_t>(value);
    num_bits += 6;
    if (num_bits < 8) continue;
    num_bits -= 8;
    bytes += static_cast<char>(bits >> num_bits);
    bits &= (1u << num_bits) - 1;
  }
  if (bits != 0) return std::nullopt;
  return bytes;
}

using Tokens = std::vector<std::pair<std::string, int32_t>>;

Result<Tokens> read_lines(std::string_view lines) {
  Tokens tokens;
  for (size_t line_number = 1; !lines.empty(); ++line_number) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t space = std::min(line.find(' '), line.size());
    const auto bytes = decode_base64(line.substr(0, space));
    const std::string_view number = line.substr(std::min(space + 1, line.size()));
    int32_t rank = -1;
    const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
    const bool whole = error == std::errc() && rest == number.data() + number.size();
    if (!bytes || bytes->empty() || !whole) {
      return fail(ErrorCode::kCorrupt, "line {} is not a base64 token and its rank", line_number);
    }
    tokens.emplace_back(*bytes, rank);
  }
  return tokens;
}

Result<PairTable> find_merges(const Tokens& tokens) {
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(tokens.size());
  uint64_t work = 0;
  for (const auto& [bytes, id] : tokens) {
    if (!ids.emplace(bytes, id).second) {
      return fail(ErrorCode::kCorrupt, "ids {} and {} have the same bytes", ids[bytes], id);
    }
    work += uint64_t{bytes.size()} * bytes.size();
    if (work > kMaxSquaredBytes) {
      return fail(ErrorCode::kUnsupported, "the tokens are too long for a vocabulary of words");
    }
  }
  PairTable merges(tokens.size() * 2);
  for (const auto& [bytes, id] : tokens) {
    const std::string_view all = bytes;
    for (size_t cut = 1; cut < all.size(); ++cut) {
      const auto left = ids.find(all.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(all.substr(cut));
      if (right != ids.end()) merges.insert(left->second, right->second, {.rank = id, .token = id});
    }
  }
  return merges;
}

}  // namespace

Result<std::string> tiktoken_pattern_of(const Json& config) {
  Result<std::string> cls = get_string(config, "tokenizer_class", "");
  if (!cls) return pass_on(cls, "tokenizer_config.json");
  if (*cls == "TikTokenTokenizer") return std::string(kKimiPattern);
  if (*cls == "QWenTokenizer" || cls->starts_with("Qwen2Tokenizer")) {
    return std::string(kQwenPattern);
  }
  return fail(ErrorCode::kUnsupported,
              "tokenizer_class in tokenizer_config.json is \"{}\", tiktoken files are supported of "
              "TikTokenTokenizer (Kimi), QWenTokenizer and Qwen2Tokenizer",
              *cls);
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_tiktoken(
    std::string_view lines, std::string_view pattern,
    const std::map<std::string, int32_t>& special_tokens, const Json& config) {
  Result<Tokens> tokens = read_lines(lines);
  if (!tokens) return pass_on(tokens);
  auto pieces = pieces_by_id(*tokens);
  if (!pieces) return pass_on(pieces);
  Result<PairTable> merges = find_merges(*tokens);
  if (!merges) return pass_on(merges);
  Result<PreTokenizer> pre = PreTokenizer::from_tiktoken_pattern(pattern);
  if (!pre) return pass_on(pre);
  Bpe bpe({.tokens = std::move(*tokens), .merges = std::move(*merges), .ignore_merges = true});
  for (int byte = 0; byte < 256; ++byte) {
    if (bpe.find(std::string(1, static_cast<char>(byte))) == Bpe::kNoToken) {
      return fail(ErrorCode::kCorrupt, "byte {:#04x} has no token, every byte needs one", byte);
    }
  }

  auto data = std::make_unique<TokenizerData>(std::move(*pre), std::move(bpe));
  data->pieces = std::move(*pieces);
  data->is_special.resize(data->pieces.size());
  for (const auto& [content, id] : special_tokens) {
    Status status = data->add_token({.id = id, .content = content, .special = true});
    if (!status) return pass_on(status);
  }
  if (Status status = data->apply_config(config); !status) {
    return pass_on(status, "tokenizer_config.json");
  }
  return std::make_shared<const Tokenizer>(std::move(data));
}

}  // namespace braid::text

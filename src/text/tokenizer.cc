#include "text/tokenizer.h"

#include <utility>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "text/tiktoken.h"
#include "text/tokenizer_data.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace braid::text {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = size_t{128} << 20;

// tokenizer_config.json of a folder, or null where there is none.
Result<Json> read_config(const fs::path& folder) {
  const fs::path path = folder / "tokenizer_config.json";
  std::error_code error;
  if (!fs::exists(path, error)) return Json(nullptr);
  Result<Json> config = read_json_file(path);
  if (config && !config->is_object()) {
    return fail(ErrorCode::kCorrupt, "{}: not a JSON object", path.string());
  }
  return config;
}

// The tiktoken file of a folder; empty where there is none.
fs::path find_tiktoken_file(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "tiktoken.model", error)) return folder / "tiktoken.model";
  fs::path found;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    // The smallest name, so that the choice does not depend on the order of the directory.
    if (entry.path().extension() == ".tiktoken" && (found.empty() || entry.path() < found)) {
      found = entry.path();
    }
  }
  return found;
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::open(const fs::path& folder) {
  Result<Json> config = read_config(folder);
  if (!config) return pass_on(config);
  std::error_code error;
  const fs::path json_path = folder / "tokenizer.json";
  if (fs::exists(json_path, error)) {
    Result<Json> json = read_json_file(json_path, {.max_bytes = kMaxFileBytes});
    if (!json) return pass_on(json);
    auto tokenizer = from_json(*json, *config);
    if (!tokenizer) return pass_on(tokenizer, json_path.string());
    return tokenizer;
  }
  const fs::path tiktoken_path = find_tiktoken_file(folder);
  if (tiktoken_path.empty()) {
    return fail(ErrorCode::kNotFound,
                "{} has no tokenizer.json, no tiktoken.model and no *.tiktoken file",
                folder.string());
  }
  Result<std::string> lines = read_file(tiktoken_path, kMaxFileBytes);
  if (!lines) return pass_on(lines);
  Result<std::string> pattern = tiktoken_pattern_of(*config);
  if (!pattern) return pass_on(pattern, tiktoken_path.string());
  auto tokenizer = from_tiktoken(*lines, *pattern, {}, *config);
  if (!tokenizer) return pass_on(tokenizer, tiktoken_path.string());
  return tokenizer;
}

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerData> data) : data_(std::move(data)) {}
Tokenizer::~Tokenizer() = default;

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  auto ids = encode_marked(text, [&](Range) { return options.allow_special; });
  if (ids && options.add_special_tokens) {
    ids->insert(ids->begin(), data_->prefix.begin(), data_->prefix.end());
    ids->insert(ids->end(), data_->suffix.begin(), data_->suffix.end());
  }
  return ids;
}

Result<std::vector<int32_t>> Tokenizer::encode(const MarkedText& text) const {
  return encode_marked(text.text(), [&](Range r) { return !text.has_input(r.begin, r.end); });
}

Result<std::vector<int32_t>> Tokenizer::encode_marked(
    std::string_view text, const AddedTokenFinder::MayBeSpecial& may_be) const {
  if (text.size() > kMaxTextBytes) {
    return fail(ErrorCode::kInvalidArgument, "the text has {} bytes, at most {} are accepted",
                text.size(), kMaxTextBytes);
  }
  if (const size_t broken = find_broken_utf8(text); broken != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "the text is not well-formed UTF-8 at byte {}",
                broken);
  }
  std::vector<int32_t> ids;
  std::vector<std::string_view> words;
  std::vector<std::string> storage;
  std::vector<TextPart> raw_parts, parts;
  data_->raw_finder.find(text, may_be, raw_parts);
  for (const TextPart& raw : raw_parts) {
    if (raw.token) {
      ids.push_back(raw.token->id);
      continue;
    }
    const std::string_view before = text.substr(raw.range.begin, raw.range.end - raw.range.begin);
    std::string normalized;
    if (data_->nfc) normalized = to_nfc(before);
    const std::string_view after = data_->nfc ? normalized : before;
    // Where normalisation moved bytes it is not known which came from where: one foreign byte then
    // keeps the whole part from holding special tokens.
    const bool same = after == before;
    const auto may_be_here = [&](Range r) {
      const size_t base = raw.range.begin;
      return same ? may_be({base + r.begin, base + r.end}) : may_be(raw.range);
    };
    parts.clear();
    data_->normalized_finder.find(after, may_be_here, parts);
    for (const TextPart& part : parts) {
      if (part.token) {
        ids.push_back(part.token->id);
        continue;
      }
      words.clear();
      Status status = data_->pre_tokenizer.split(
          after.substr(part.range.begin, part.range.end - part.range.begin), words, storage);
      if (!status) return pass_on(status);
      for (const std::string_view word : words) data_->bpe.encode_word(word, ids);
    }
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!(skip_special_tokens && is_special(id))) bytes += piece(id);
  }
  return to_valid_utf8(bytes);
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(data_->pieces.size()); }

std::string_view Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return data_->pieces[id];
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && data_->is_special[id];
}

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  const auto added = data_->added_id_of_content.find(token);
  if (added != data_->added_id_of_content.end()) return added->second;
  const int32_t id = data_->bpe.find(token);
  return id == Bpe::kNoToken ? std::nullopt : std::optional(id);
}

std::optional<int32_t> Tokenizer::bos_id() const { return data_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return data_->eos_id; }
std::optional<int32_t> Tokenizer::pad_id() const { return data_->pad_id; }
const std::string& Tokenizer::bos_token() const { return data_->bos_token; }
const std::string& Tokenizer::eos_token() const { return data_->eos_token; }

}  // namespace braid::text

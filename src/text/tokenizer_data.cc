#include "text/tokenizer_data.h"

#include <charconv>

#include "base/json.h"
#include "text/byte_alphabet.h"
#include "text/json_fields.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace braid::text {
namespace {

// "bos_token": "<s>", or {"content": "<s>", ...}, or null.
std::string token_named(const Json& config, std::string_view key) {
  const Json* field = find_field(config, key);
  if (field && field->is_object()) field = find_field(*field, "content");
  return field && field->is_string() ? field->get<std::string>() : std::string();
}

Status check_id(int32_t id, std::string_view content) {
  if (id >= 0 && id <= Tokenizer::kMaxTokenId) return {};
  return fail(ErrorCode::kCorrupt, "token \"{}\" has id {}, ids are in [0, {}]", content, id,
              Tokenizer::kMaxTokenId);
}

}  // namespace

Result<std::vector<std::string>> pieces_by_id(
    const std::vector<std::pair<std::string, int32_t>>& tokens) {
  int32_t largest = -1;
  for (const auto& [bytes, id] : tokens) {
    if (Status status = check_id(id, bytes); !status) return pass_on(status);
    largest = std::max(largest, id);
  }
  std::vector<std::string> pieces(static_cast<size_t>(largest) + 1);
  for (const auto& [bytes, id] : tokens) {
    if (!pieces[id].empty()) {
      return fail(ErrorCode::kCorrupt, "tokens \"{}\" and \"{}\" have the same id {}", pieces[id],
                  bytes, id);
    }
    pieces[id] = bytes;
  }
  return pieces;
}

Status TokenizerData::add_token(AddedToken token) {
  if (token.content.empty()) return {};
  if (token.content.size() > kMaxAddedTokenBytes) {
    return fail(ErrorCode::kUnsupported, "added token {} has {} bytes, at most {} are supported",
                token.id, token.content.size(), kMaxAddedTokenBytes);
  }
  if (Status status = check_id(token.id, token.content); !status) return status;
  const auto known = added_id_of_content.find(token.content);
  if (known != added_id_of_content.end()) {
    if (known->second == token.id) return {};
    return fail(ErrorCode::kCorrupt, "added token \"{}\" has two ids, {} and {}", token.content,
                known->second, token.id);
  }
  // The decoder reads added tokens in the alphabet of bytes too, where they happen to fit it.
  const std::string bytes = bytes_of_piece(token.content).value_or(token.content);
  const auto id = static_cast<size_t>(token.id);
  if (id >= pieces.size()) pieces.resize(id + 1);
  is_special.resize(pieces.size());
  if (!pieces[id].empty() && pieces[id] != bytes) {
    return fail(ErrorCode::kCorrupt, "added token \"{}\" has id {}, which is the id of \"{}\"",
                token.content, token.id, pieces[id]);
  }
  pieces[id] = bytes;
  is_special[id] = token.special;
  const AddedToken& kept = added.emplace_back(std::move(token));
  added_id_of_content.emplace(kept.content, kept.id);
  if (kept.normalized) {
    normalized_finder.add(kept, nfc ? to_nfc(kept.content) : kept.content);
  } else {
    raw_finder.add(kept, kept.content);
  }
  return {};
}

Status TokenizerData::apply_config(const Json& config) {
  Result<const Json*> decoder = get_object(config, "added_tokens_decoder", /*optional=*/true);
  if (!decoder) return pass_on(decoder);
  if (*decoder) {
    for (const auto& [key, value] : (*decoder)->items()) {
      AddedToken token;
      const auto [rest, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
      if (error != std::errc() || rest != key.data() + key.size()) {
        return fail(ErrorCode::kCorrupt, "added_tokens_decoder has the key \"{}\", not a token id",
                    key);
      }
      if (Status status = read_added_token_flags(value, token); !status) return status;
      // Where both files name a token, tokenizer.json is the one that the vocabulary came with.
      if (added_id_of_content.contains(token.content)) continue;
      if (Status status = add_token(std::move(token)); !status) return status;
    }
  }

  const auto id_named = [&](std::string_view key) -> std::optional<int32_t> {
    const std::string name = token_named(config, key);
    const auto found = added_id_of_content.find(name);
    if (found != added_id_of_content.end()) return found->second;
    const int32_t id = name.empty() ? Bpe::kNoToken : bpe.find(name);
    return id == Bpe::kNoToken ? std::nullopt : std::optional(id);
  };
  bos_token = token_named(config, "bos_token");
  eos_token = token_named(config, "eos_token");
  bos_id = id_named("bos_token");
  eos_id = id_named("eos_token");
  pad_id = id_named("pad_token");

  // Tokenizers of the Llama class set up their template from these two switches, whatever
  // tokenizer.json says.
  Result<std::string> cls = get_string(config, "tokenizer_class", "");
  if (!cls) return pass_on(cls);
  if (cls->starts_with("LlamaTokenizer")) {
    Result<bool> add_bos = get_bool(config, "add_bos_token", !prefix.empty());
    if (!add_bos) return pass_on(add_bos);
    Result<bool> add_eos = get_bool(config, "add_eos_token", !suffix.empty());
    if (!add_eos) return pass_on(add_eos);
    prefix.clear();
    suffix.clear();
    if (*add_bos && bos_id) prefix.push_back(*bos_id);
    if (*add_eos && eos_id) suffix.push_back(*eos_id);
  }
  return {};
}

Status read_added_token_flags(const Json& json, AddedToken& token) {
  Result<std::string> content = get_string(json, "content");
  if (!content) return pass_on(content, "added token");
  token.content = std::move(*content);
  const std::string place = "added token \"" + token.content + "\"";
  const auto flag = [&](std::string_view key, bool otherwise, bool& to) -> Status {
    Result<bool> value = get_bool(json, key, otherwise);
    if (!value) return pass_on(value, place);
    to = *value;
    return {};
  };
  if (Status s = flag("special", false, token.special); !s) return s;
  if (Status s = flag("normalized", !token.special, token.normalized); !s) return s;
  if (Status s = flag("lstrip", false, token.lstrip); !s) return s;
  if (Status s = flag("rstrip", false, token.rstrip); !s) return s;
  return flag("single_word", false, token.single_word);
}

}  // namespace braid::text

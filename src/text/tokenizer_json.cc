// Reads tokenizer.json of HF tokenizers 0.21. What it does not understand it refuses by name: a
// tokenizer that leaves out a part still gives ids, only other ones.

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "base/json.h"
#include "text/byte_alphabet.h"
#include "text/json_fields.h"
#include "text/tokenizer.h"
#include "text/tokenizer_data.h"

namespace braid::text {
namespace {

constexpr int kMaxDepth = 8;

// Refuses keys that are not in `known`.
template <size_t kSize>
Status check_keys(const Json& json, const std::array<std::string_view, kSize>& known,
                  std::string_view where) {
  if (!json.is_object()) return fail(ErrorCode::kCorrupt, "{} is not an object", where);
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return fail(ErrorCode::kUnsupported, "{} has the key \"{}\", which this build does not know",
                  where, key);
    }
  }
  return {};
}

// Whether text is to be normalised to form C.
Result<bool> read_normalizer(const Json* json, int depth = 0) {
  if (!json) return false;
  Result<std::string> type = get_string(*json, "type");
  if (!type) return pass_on(type, "normalizer");
  if (*type == "NFC") return true;
  if (*type == "Sequence" && depth < kMaxDepth) {
    Result<const Json*> steps = get_array(*json, "normalizers");
    if (!steps) return pass_on(steps, "normalizer");
    bool nfc = false;
    for (const Json& step : **steps) {
      Result<bool> one = read_normalizer(&step, depth + 1);
      if (!one) return one;
      nfc = nfc || *one;
    }
    return nfc;
  }
  return fail(ErrorCode::kUnsupported,
              "normalizer type is \"{}\", supported are NFC and a Sequence of it", *type);
}

// All a byte-level decoder does is to join the pieces' bytes.
Status check_decoder(const Json* json, int depth = 0) {
  if (!json) {
    return fail(ErrorCode::kUnsupported, "decoder is missing, supported is ByteLevel");
  }
  Result<std::string> type = get_string(*json, "type");
  if (!type) return pass_on(type, "decoder");
  if (*type == "ByteLevel") return {};
  if (*type == "Sequence" && depth < kMaxDepth) {
    Result<const Json*> steps = get_array(*json, "decoders");
    if (!steps) return pass_on(steps, "decoder");
    if ((*steps)->size() == 1) return check_decoder(&(*steps)->front(), depth + 1);
  }
  return fail(ErrorCode::kUnsupported, "decoder type is \"{}\", supported is ByteLevel", *type);
}

// The ids of a special token of a template, as "special_tokens" lists them.
Status append_template_token(const Json& special_tokens, const Json& part,
                             std::vector<int32_t>& ids) {
  Result<std::string> name = get_string(part, "id");
  if (!name) return pass_on(name);
  Result<const Json*> token = get_object(special_tokens, *name);
  if (!token) return pass_on(token, "special_tokens");
  Result<const Json*> list = get_array(**token, "ids");
  if (!list) return pass_on(list);
  for (const Json& id : **list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t{Tokenizer::kMaxTokenId}) {
      return fail(ErrorCode::kCorrupt, "special token \"{}\" has the id {}, ids are in [0, {}]",
                  *name, id.dump(-1, ' ', true, Json::error_handler_t::replace),
                  Tokenizer::kMaxTokenId);
    }
    ids.push_back(id.get<int32_t>());
  }
  return {};
}

// TemplateProcessing: the parts of "single" before and after the sequence.
Status read_template(const Json& json, std::vector<int32_t>& prefix, std::vector<int32_t>& suffix) {
  Result<const Json*> single = get_array(json, "single");
  if (!single) return pass_on(single);
  Result<const Json*> special_tokens = get_object(json, "special_tokens");
  if (!special_tokens) return pass_on(special_tokens);
  bool seen = false;
  for (const Json& part : **single) {
    if (find_field(part, "Sequence") && !seen) {
      seen = true;
    } else if (const Json* token = find_field(part, "SpecialToken")) {
      Status status = append_template_token(**special_tokens, *token, seen ? suffix : prefix);
      if (!status) return status;
    } else {
      return fail(ErrorCode::kUnsupported,
                  "\"single\" is not made of special tokens around one sequence");
    }
  }
  if (!seen) return fail(ErrorCode::kCorrupt, "\"single\" has no sequence");
  return {};
}

Status read_post_processor(const Json* json, std::vector<int32_t>& prefix,
                           std::vector<int32_t>& suffix, int depth = 0) {
  if (!json) return {};
  Result<std::string> type = get_string(*json, "type");
  if (!type) return pass_on(type);
  if (*type == "ByteLevel") return {};  // moves offsets, not ids
  if (*type == "TemplateProcessing") return read_template(*json, prefix, suffix);
  if (*type == "Sequence" && depth < kMaxDepth) {
    Result<const Json*> steps = get_array(*json, "processors");
    if (!steps) return pass_on(steps);
    for (const Json& step : **steps) {
      if (Status status = read_post_processor(&step, prefix, suffix, depth + 1); !status) {
        return status;
      }
    }
    return {};
  }
  return fail(ErrorCode::kUnsupported,
              "type is \"{}\", supported are ByteLevel, TemplateProcessing and Sequence", *type);
}

using IdOfToken = std::unordered_map<std::string_view, int32_t>;

// "a b", or ["a", "b"]. Views of the merge's own strings.
Result<std::pair<std::string_view, std::string_view>> read_merge(const Json& merge, size_t index) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::pair<std::string_view, std::string_view>(merge[0].get_ref<const std::string&>(),
                                                         merge[1].get_ref<const std::string&>());
  }
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return fail(ErrorCode::kCorrupt, "merge {} is neither \"a b\" nor [\"a\", \"b\"]", index);
}

Status read_merges(const Json& list, const IdOfToken& ids, PairTable& merges) {
  const auto id_of = [&](std::string_view token) {
    const auto found = ids.find(token);
    return found == ids.end() ? Bpe::kNoToken : found->second;
  };
  merges = PairTable(list.size());
  std::string joined;
  for (size_t rank = 0; rank < list.size(); ++rank) {
    const auto pair = read_merge(list[rank], rank);
    if (!pair) return tl::unexpected(pair.error());
    const auto [left, right] = *pair;
    joined.assign(left).append(right);
    for (const std::string_view token : {left, right, std::string_view(joined)}) {
      if (id_of(token) == Bpe::kNoToken) {
        return fail(ErrorCode::kCorrupt,
                    "merge {} (\"{}\" and \"{}\") needs the token \"{}\", "
                    "which is not in the vocabulary",
                    rank, left, right, token);
      }
    }
    const Merge merge = {static_cast<int32_t>(rank), id_of(joined)};
    if (!merges.insert(id_of(left), id_of(right), merge)) {
      return fail(ErrorCode::kCorrupt, "merge {} (\"{}\" and \"{}\") is there twice", rank, left,
                  right);
    }
  }
  return {};
}

Status check_model(const Json& model) {
  Status keys = check_keys(
      model,
      std::to_array<std::string_view>({"type", "dropout", "unk_token", "continuing_subword_prefix",
                                       "end_of_word_suffix", "fuse_unk", "byte_fallback",
                                       "ignore_merges", "vocab", "merges"}),
      "model");
  if (!keys) return keys;
  Result<std::string> type = get_string(model, "type", "BPE");
  if (!type) return pass_on(type, "model");
  if (*type != "BPE") {
    return fail(ErrorCode::kUnsupported, "model type is \"{}\", supported is BPE", *type);
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    Result<std::string> affix = get_string(model, key, "");
    if (!affix) return pass_on(affix, "model");
    if (!affix->empty()) {
      return fail(ErrorCode::kUnsupported, "model has {} \"{}\", supported is none", key, *affix);
    }
  }
  const Json* dropout = find_field(model, "dropout");
  if (dropout && *dropout != 0) {
    return fail(ErrorCode::kUnsupported, "model has dropout, supported is none");
  }
  Result<bool> byte_fallback = get_bool(model, "byte_fallback", false);
  if (!byte_fallback) return pass_on(byte_fallback, "model");
  if (*byte_fallback) {
    return fail(ErrorCode::kUnsupported,
                "model has byte_fallback, supported are byte-level vocabularies");
  }
  return {};
}

// The vocabulary and merges; `pieces` receives the bytes of every token.
Result<Bpe::Tables> read_model(const Json& model, std::vector<std::string>& pieces) {
  if (Status status = check_model(model); !status) return pass_on(status);
  Result<const Json*> vocab = get_object(model, "vocab");
  if (!vocab) return pass_on(vocab, "model");
  Result<const Json*> merges = get_array(model, "merges");
  if (!merges) return pass_on(merges, "model");

  Bpe::Tables tables;
  IdOfToken ids;
  ids.reserve((*vocab)->size());
  std::vector<std::pair<std::string, int32_t>> tokens;
  tokens.reserve((*vocab)->size());
  for (const auto& [token, id] : (*vocab)->items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t{Tokenizer::kMaxTokenId}) {
      return fail(ErrorCode::kCorrupt, "token \"{}\" has the id {}, ids are in [0, {}]", token,
                  id.dump(-1, ' ', true, Json::error_handler_t::replace), Tokenizer::kMaxTokenId);
    }
    if (token.empty()) return fail(ErrorCode::kCorrupt, "the vocabulary has an empty token");
    ids.emplace(token, id.get<int32_t>());
    if (auto bytes = bytes_of_piece(token)) {
      tables.tokens.emplace_back(*bytes, id.get<int32_t>());
      tokens.emplace_back(std::move(*bytes), id.get<int32_t>());
    } else {
      tokens.emplace_back(token, id.get<int32_t>());  // no word; reached as an added token only
    }
  }
  auto by_id = pieces_by_id(tokens);
  if (!by_id) return pass_on(by_id);
  pieces = std::move(*by_id);
  if (Status status = read_merges(**merges, ids, tables.merges); !status) return pass_on(status);

  Result<std::string> unk = get_string(model, "unk_token", "");
  if (!unk) return pass_on(unk, "model");
  if (!unk->empty()) {
    const auto found = ids.find(*unk);
    if (found == ids.end()) {
      return fail(ErrorCode::kCorrupt, "unk_token \"{}\" is not in the vocabulary", *unk);
    }
    tables.unk_token = found->second;
  }
  Result<bool> fuse_unk = get_bool(model, "fuse_unk", false);
  if (!fuse_unk) return pass_on(fuse_unk, "model");
  tables.fuse_unk = *fuse_unk;
  Result<bool> ignore_merges = get_bool(model, "ignore_merges", false);
  if (!ignore_merges) return pass_on(ignore_merges, "model");
  tables.ignore_merges = *ignore_merges;
  return tables;
}

Status read_added_tokens(const Json& json, TokenizerData& data) {
  Result<const Json*> list = get_array(json, "added_tokens", /*optional=*/true);
  if (!list) return pass_on(list);
  if (!*list) return {};
  for (const Json& entry : **list) {
    AddedToken token;
    if (Status status = read_added_token_flags(entry, token); !status) return status;
    Result<int32_t> id = get_id(entry, "id");
    if (!id) return pass_on(id, "added token \"" + token.content + "\"");
    token.id = *id;
    if (Status status = data.add_token(std::move(token)); !status) return status;
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_json(const Json& json,
                                                              const Json& config) {
  // Truncation and padding are settings of a batch, which every caller sets anew.
  Status keys = check_keys(json,
                           std::to_array<std::string_view>(
                               {"version", "truncation", "padding", "added_tokens", "normalizer",
                                "pre_tokenizer", "post_processor", "decoder", "model"}),
                           "the file");
  if (!keys) return pass_on(keys);
  Result<const Json*> model = get_object(json, "model");
  if (!model) return pass_on(model);
  std::vector<std::string> pieces;
  Result<Bpe::Tables> tables = read_model(**model, pieces);
  if (!tables) return pass_on(tables);
  Result<bool> nfc = read_normalizer(find_field(json, "normalizer"));
  if (!nfc) return pass_on(nfc);
  if (Status status = check_decoder(find_field(json, "decoder")); !status) return pass_on(status);
  const Json* pre_json = find_field(json, "pre_tokenizer");
  Result<PreTokenizer> pre = PreTokenizer::from_json(pre_json ? *pre_json : Json());
  if (!pre) return pass_on(pre);

  auto data = std::make_unique<TokenizerData>(std::move(*pre), Bpe(std::move(*tables)));
  data->nfc = *nfc;
  data->pieces = std::move(pieces);
  data->is_special.resize(data->pieces.size());
  if (Status status = read_added_tokens(json, *data); !status) return pass_on(status);
  Status post = read_post_processor(find_field(json, "post_processor"), data->prefix, data->suffix);
  if (!post) return pass_on(post, "post_processor");
  if (Status status = data->apply_config(config); !status) {
    return pass_on(status, "tokenizer_config.json");
  }
  return std::make_shared<const Tokenizer>(std::move(data));
}

}  // namespace braid::text

#include "text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/result.h"
#include "text/json_fields.h"

namespace braid::text {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// char::is_numeric of Rust; ASCII punctuation and the P categories.
constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kPunctuation = R"([!-\/:-@\[-`{-~\p{P}])";
constexpr int kMaxDepth = 8;
constexpr size_t kMaxSteps = 64;

// A stretch of a word: what the expression matched, or what lies between two matches.
struct Piece {
  Range range;
  bool is_match;
};

Result<SplitBehaviour> parse_behaviour(const std::string& name) {
  if (name == "Removed") return SplitBehaviour::kRemoved;
  if (name == "Isolated") return SplitBehaviour::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehaviour::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehaviour::kMergedWithNext;
  if (name == "Contiguous") return SplitBehaviour::kContiguous;
  return fail(ErrorCode::kUnsupported,
              "split behaviour is \"{}\", supported are Removed, Isolated, MergedWithPrevious, "
              "MergedWithNext and Contiguous",
              name);
}

// Joins or drops neighbouring pieces; every piece that is left is a word.
std::vector<Piece> apply_behaviour(const std::vector<Piece>& pieces, SplitBehaviour behaviour) {
  std::vector<Piece> out;
  bool previous = false;  // whether the piece before was a match
  switch (behaviour) {
    case SplitBehaviour::kRemoved:
      std::copy_if(pieces.begin(), pieces.end(), std::back_inserter(out),
                   [](const Piece& piece) { return !piece.is_match; });
      break;
    case SplitBehaviour::kIsolated:
      out = pieces;
      break;
    case SplitBehaviour::kMergedWithPrevious:
      for (const Piece& piece : pieces) {
        if (piece.is_match && !previous && !out.empty()) {
          out.back().range.end = piece.range.end;
        } else {
          out.push_back(piece);
        }
        previous = piece.is_match;
      }
      break;
    case SplitBehaviour::kMergedWithNext:
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
        if (piece->is_match && !previous && !out.empty()) {
          out.back().range.begin = piece->range.begin;
        } else {
          out.push_back(*piece);
        }
        previous = piece->is_match;
      }
      std::reverse(out.begin(), out.end());
      break;
    case SplitBehaviour::kContiguous:
      for (const Piece& piece : pieces) {
        if (piece.is_match == previous && !out.empty()) {
          out.back().range.end = piece.range.end;
        } else {
          out.push_back(piece);
        }
        previous = piece.is_match;
      }
      break;
  }
  return out;
}

}  // namespace

Result<PreTokenizer> PreTokenizer::from_json(const Json& json) {
  PreTokenizer pre;
  if (!json.is_null()) {
    if (Status status = pre.add(json, 0); !status) return pass_on(status, "pre_tokenizer");
  }
  if (!pre.has_byte_level_) {
    return fail(ErrorCode::kUnsupported,
                "pre_tokenizer does not end in ByteLevel, only byte-level vocabularies are "
                "supported");
  }
  return pre;
}

Result<PreTokenizer> PreTokenizer::from_tiktoken_pattern(std::string_view pattern) {
  PreTokenizer pre;
  // The matches are kept: what lies between them is removed.
  Status status = pre.add_step(pattern, RegexFlavour::kRust, SplitBehaviour::kRemoved, true);
  if (!status) return pass_on(status, "tiktoken pattern");
  return pre;
}

Status PreTokenizer::add_step(std::string_view pattern, RegexFlavour flavour,
                              SplitBehaviour behaviour, bool invert) {
  if (steps_.size() >= kMaxSteps) {
    return fail(ErrorCode::kUnsupported, "there are more than {} steps", kMaxSteps);
  }
  Result<Regex> regex = Regex::compile(pattern, flavour);
  if (!regex) return pass_on(regex);
  steps_.push_back({std::move(*regex), behaviour, invert});
  return {};
}

Status PreTokenizer::add(const Json& json, int depth) {
  Result<std::string> type = get_string(json, "type");
  if (!type) return pass_on(type);
  if (has_byte_level_) {
    return fail(ErrorCode::kUnsupported, "{} follows ByteLevel, which has to be the last step",
                *type);
  }
  if (*type == "Sequence") {
    if (depth >= kMaxDepth) {
      return fail(ErrorCode::kUnsupported, "sequences are nested more than {} deep", kMaxDepth);
    }
    Result<const Json*> steps = get_array(json, "pretokenizers");
    if (!steps) return pass_on(steps);
    for (const Json& step : **steps) {
      if (Status status = add(step, depth + 1); !status) return status;
    }
    return {};
  }
  if (*type == "Split") return add_split(json);
  if (*type == "ByteLevel") return add_byte_level(json);
  if (*type == "Digits") {
    Result<bool> individual = get_bool(json, "individual_digits", false);
    if (!individual) return pass_on(individual);
    return add_step(kDigit, RegexFlavour::kOniguruma,
                    *individual ? SplitBehaviour::kIsolated : SplitBehaviour::kContiguous);
  }
  if (*type == "Punctuation") {
    Result<std::string> name = get_string(json, "behavior", "Isolated");
    if (!name) return pass_on(name);
    Result<SplitBehaviour> behaviour = parse_behaviour(*name);
    if (!behaviour) return pass_on(behaviour);
    return add_step(kPunctuation, RegexFlavour::kOniguruma, *behaviour);
  }
  return fail(ErrorCode::kUnsupported,
              "type is \"{}\", supported are Sequence, Split, Digits, Punctuation and ByteLevel",
              *type);
}

Status PreTokenizer::add_split(const Json& json) {
  Result<std::string> name = get_string(json, "behavior");
  if (!name) return pass_on(name);
  Result<SplitBehaviour> behaviour = parse_behaviour(*name);
  if (!behaviour) return pass_on(behaviour);
  Result<bool> invert = get_bool(json, "invert", false);
  if (!invert) return pass_on(invert);
  const auto pattern = json.find("pattern");
  if (pattern == json.end() || !pattern->is_object() || pattern->size() != 1 ||
      !pattern->begin()->is_string()) {
    return fail(ErrorCode::kCorrupt,
                "the pattern of a Split is not an object with one of \"Regex\" and \"String\"");
  }
  const std::string& kind = pattern->begin().key();
  const auto& text = pattern->begin()->get_ref<const std::string&>();
  if (kind == "Regex") return add_step(text, RegexFlavour::kOniguruma, *behaviour, *invert);
  if (kind == "String") {
    Result<Regex> regex = Regex::literal(text);
    if (!regex) return pass_on(regex);
    steps_.push_back({std::move(*regex), *behaviour, *invert});
    return {};
  }
  return fail(ErrorCode::kUnsupported,
              "the pattern of a Split is a \"{}\", supported are Regex and String", kind);
}

Status PreTokenizer::add_byte_level(const Json& json) {
  Result<bool> prefix_space = get_bool(json, "add_prefix_space", true);
  if (!prefix_space) return pass_on(prefix_space);
  Result<bool> use_regex = get_bool(json, "use_regex", true);
  if (!use_regex) return pass_on(use_regex);
  has_byte_level_ = true;
  if (*prefix_space) prefix_space_before_step_ = steps_.size();
  if (!*use_regex) return {};
  return add_step(kGpt2Pattern, RegexFlavour::kOniguruma, SplitBehaviour::kIsolated);
}

Status PreTokenizer::split(std::string_view text, std::vector<std::string_view>& words,
                           std::vector<std::string>& storage) const {
  std::vector<std::string_view> now = {text}, then;
  std::vector<Range> matches;
  std::vector<Piece> pieces;
  const auto add_prefix_spaces = [&] {
    storage.reserve(storage.size() + now.size());  // views into its strings must stay
    for (std::string_view& word : now) {
      if (word.starts_with(' ')) continue;
      word = storage.emplace_back(" " + std::string(word));
    }
  };
  storage.clear();
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (prefix_space_before_step_ == i) add_prefix_spaces();
    const Step& step = steps_[i];
    then.clear();
    for (const std::string_view word : now) {
      matches.clear();
      if (Status status = step.regex.find_all(word, matches); !status) return status;
      pieces.clear();
      size_t end = 0;
      for (const Range& match : matches) {
        if (match.begin > end) pieces.push_back({{end, match.begin}, step.invert});
        pieces.push_back({match, !step.invert});
        end = match.end;
      }
      if (end < word.size()) pieces.push_back({{end, word.size()}, step.invert});
      for (const Piece& piece : apply_behaviour(pieces, step.behaviour)) {
        const Range r = piece.range;
        if (r.end > r.begin) then.push_back(word.substr(r.begin, r.end - r.begin));
      }
    }
    now.swap(then);
  }
  if (prefix_space_before_step_ == steps_.size()) add_prefix_spaces();
  for (const std::string_view word : now) {
    if (!word.empty()) words.push_back(word);
  }
  return {};
}

}  // namespace braid::text

#define PCRE2_CODE_UNIT_WIDTH 8
#include "adapter/pattern_table.h"

#include <pcre2.h>

#include <algorithm>

namespace braid {
namespace {

constexpr size_t kMaxRegexes = 512;
constexpr size_t kMaxRegexChars = 2000;
constexpr uint32_t kMatchLimit = 20'000;  // steps of one match; ordinary keys need under 500

bool is_plain(std::string_view key) {
  return std::ranges::all_of(key, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.';
  });
}

size_t dots(std::string_view text) { return std::ranges::count(text, '.'); }

bool wildcard_equal(std::string_view key, std::string_view text) {
  return std::ranges::equal(key, text, [](char k, char t) { return k == '.' || k == t; });
}

void keep_first(std::optional<size_t>& best, size_t position) {
  if (!best || position < *best) best = position;
}

}  // namespace

struct PatternTable::Regex {
  explicit Regex(pcre2_code* compiled)
      : code(compiled),
        data(pcre2_match_data_create_from_pattern(compiled, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_depth_limit(context, 1000);
    pcre2_set_heap_limit(context, 4096);  // KiB
  }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;
  ~Regex() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
  }

  pcre2_code* code;
  pcre2_match_data* data;  // scratch: a table is used by one thread
  pcre2_match_context* context;
};

Result<PatternTable> PatternTable::make(const std::vector<PatternEntry>& entries,
                                        std::string name) {
  PatternTable table;
  table.name_ = std::move(name);
  table.entries_ = entries;
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string& key = entries[i].key;
    if (is_plain(key)) {
      table.plain_.emplace(key, i);
      table.plain_of_shape_[{key.size(), dots(key)}].push_back(i);
      continue;
    }
    const std::string shown = key.substr(0, 80);
    if (table.regexes_.size() == kMaxRegexes || key.size() > kMaxRegexChars) {
      return fail(ErrorCode::kUnsupported,
                  "{}[\"{}\"]: at most {} regular expressions of {} characters are accepted",
                  table.name_, shown, kMaxRegexes, kMaxRegexChars);
    }
    const std::string pattern = "(?:.*\\.)?(?:" + key + ")$";
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                      PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
    if (code == nullptr) {
      PCRE2_UCHAR text[160] = {};
      pcre2_get_error_message(error, text, sizeof text);
      return fail(ErrorCode::kCorrupt, "{}[\"{}\"] is not a regular expression: {}", table.name_,
                  shown, reinterpret_cast<const char*>(text));
    }
    table.regexes_.emplace_back(i, std::make_shared<const Regex>(code));
  }
  return table;
}

Result<std::optional<size_t>> PatternTable::first_match(std::string_view module) const {
  std::optional<size_t> best;
  // Plain keys: every end of the name that starts at a dotted part.
  for (size_t start = 0; !plain_.empty() && start <= module.size();) {
    const std::string_view end = module.substr(start);
    if (const auto it = plain_.find(std::string(end)); it != plain_.end()) {
      keep_first(best, it->second);
    }
    for (auto it = plain_of_shape_.upper_bound({end.size(), dots(end)});
         it != plain_of_shape_.end() && it->first.first == end.size(); ++it) {
      for (const size_t i : it->second) {
        if (wildcard_equal(entries_[i].key, end)) keep_first(best, i);
      }
    }
    const size_t dot = module.find('.', start);
    if (dot == module.npos) break;
    start = dot + 1;
  }
  for (const auto& [position, regex] : regexes_) {
    if (best && *best < position) break;
    const int rc = pcre2_match(regex->code, reinterpret_cast<PCRE2_SPTR>(module.data()),
                               module.size(), 0, 0, regex->data, regex->context);
    if (rc >= 0) return std::optional<size_t>(position);
    if (rc != PCRE2_ERROR_NOMATCH) {
      return fail(ErrorCode::kUnsupported,
                  "{}[\"{}\"] needs too many steps to match \"{}\"; write a simpler key", name_,
                  entries_[position].key.substr(0, 80), module.substr(0, 120));
    }
  }
  return best;
}

Result<std::optional<double>> PatternTable::find(std::string_view module) const {
  return find_any({std::string(module)});
}

Result<std::optional<double>> PatternTable::find_any(
    const std::vector<std::string>& spellings) const {
  std::optional<size_t> best;
  for (const std::string& spelling : spellings) {
    auto match = first_match(spelling);
    if (!match) return pass_on(match);
    if (*match) keep_first(best, **match);
  }
  if (!best) return std::optional<double>();
  return std::optional<double>(entries_[*best].value);
}

}  // namespace braid

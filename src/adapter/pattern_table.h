#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "adapter/lora_config.h"
#include "base/result.h"

namespace braid {

// Looks modules up in rank_pattern or alpha_pattern by PEFT's rule: the value of the first key, in
// the order of the file, for which re.match(r"(.*\.)?(key)$", module) holds, so that a key matches
// whole dotted ends of a name and "^" pins it to the start. Keys are hostile: a match that runs
// away is an error, and keys without regular-expression signs are found by hash. Source:
// get_pattern_key of huggingface/peft, src/peft/utils/other.py.
class PatternTable {
 public:
  // Errors  kCorrupt (a key is no regular expression)  kUnsupported (too many or too long ones)
  static Result<PatternTable> make(const std::vector<PatternEntry>& entries, std::string name);

  // Nothing when no key matches.
  //
  // Errors  kUnsupported (a key needs too many steps)
  Result<std::optional<double>> find(std::string_view module) const;

  // The position of the first entry that matches one of the spellings of a module, and its value.
  Result<std::optional<double>> find_any(const std::vector<std::string>& spellings) const;

 private:
  struct Regex;  // a compiled key

  Result<std::optional<size_t>> first_match(std::string_view module) const;

  std::string name_;
  std::vector<PatternEntry> entries_;
  std::unordered_map<std::string, size_t> plain_;  // key -> position
  // Plain keys by (length, dots): a dot stands for any sign, so a key with more dots than the name
  // can match it too.
  std::map<std::pair<size_t, size_t>, std::vector<size_t>> plain_of_shape_;
  std::vector<std::pair<size_t, std::shared_ptr<const Regex>>> regexes_;  // by position
};

}  // namespace braid

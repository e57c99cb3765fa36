#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/network.h"
#include "grammar/regex_syntax.h"

namespace braid::grammar {

// Keeps the order of an object's members, which is the order they are written in.
using OrderedJson = nlohmann::ordered_json;

// A bound of a range of numbers, exactly as decimal digits: |value| = whole.fraction.
struct DecimalBound {
  bool is_negative = false;
  std::string whole;     // no leading zeros, "0" for nothing
  std::string fraction;  // no trailing zeros
  bool is_inclusive = true;

  // Of a JSON number. Empty for one with more than 18 digits before the point or 30 behind it.
  static std::optional<DecimalBound> of(const OrderedJson& number, bool is_inclusive);
};

// The parts that JSON texts are made of, as parts of a network (see fragments.h). Rules that are
// shared are made when first asked for.
//
// Numbers have up to 18 digits before the point, 17 behind it and 2 in the exponent; white space is
// at most one blank, or a line break with up to 40 blanks.
class JsonText {
 public:
  explicit JsonText(NetworkBuilder& net) : net_(net) {}

  StateId add_space(StateId from);
  StateId add_value(StateId from);                                       // any
  StateId add_object(StateId from);                                      // any object
  StateId add_array(StateId from);                                       // any array
  StateId add_string(StateId from);                                      // any string
  StateId add_string_of_length(StateId from, int32_t min, int32_t max);  // max -1: without end
  StateId add_string_with(StateId from, const Regex& pattern);  // in which the pattern is found
  StateId add_string_matching(StateId from, const Regex& whole);
  StateId add_quoted(StateId from, std::string_view utf8);
  StateId add_key_other_than(StateId from, const std::vector<std::string>& keys);
  StateId add_literal(StateId from, const OrderedJson& value);
  StateId add_number(StateId from, bool is_integer);
  StateId add_number_between(StateId from, const std::optional<DecimalBound>& low,
                             const std::optional<DecimalBound>& high, bool is_integer);

  // States of the rules that were asked for. Once, at the end.
  void finish();

 private:
  RuleId shared(std::optional<RuleId>& rule, const char* name);
  StateId quote(StateId from) { return add_byte(from, '"'); }
  StateId add_byte(StateId from, char c);
  StateId add_digits(StateId from, int32_t min, int32_t max);
  StateId add_members(StateId from, char open, char close, bool has_keys);
  void fill_space();
  void fill_value();
  void fill_string();

  NetworkBuilder& net_;
  std::optional<RuleId> space_, value_, string_;
};

}  // namespace braid::grammar

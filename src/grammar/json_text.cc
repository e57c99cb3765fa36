#include "grammar/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/check.h"
#include "grammar/decimal_range.h"
#include "grammar/fragments.h"
#include "text/utf8.h"

namespace braid::grammar {
namespace {

constexpr int32_t kMaxIndent = 40;
constexpr size_t kMaxBoundFraction = 30;

CodePointSet in_strings() {
  return CodePointSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).complement();
}

int compare_magnitudes(const DecimalBound& a, const DecimalBound& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
  if (const int whole = a.whole.compare(b.whole); whole != 0) return whole;
  return a.fraction.compare(b.fraction);
}

}  // namespace

std::optional<DecimalBound> DecimalBound::of(const OrderedJson& number, bool is_inclusive) {
  std::string digits;
  if (number.is_number_integer()) {
    digits = number.dump();
  } else {
    // The shortest digits that are this number, without an exponent.
    std::array<char, 512> buffer;
    const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(),
                                            number.get<double>(), std::chars_format::fixed);
    if (error != std::errc()) return std::nullopt;
    digits.assign(buffer.data(), end);
  }
  DecimalBound bound = {.is_inclusive = is_inclusive};
  bound.is_negative = digits.starts_with('-');
  if (bound.is_negative) digits.erase(0, 1);
  const size_t point = std::min(digits.find('.'), digits.size());
  bound.whole = digits.substr(0, point);
  bound.fraction = digits.substr(std::min(point + 1, digits.size()));
  while (bound.fraction.ends_with('0')) bound.fraction.pop_back();
  if (bound.whole == "0" && bound.fraction.empty()) bound.is_negative = false;
  if (bound.whole.size() > kMaxWholeDigits || bound.fraction.size() > kMaxBoundFraction)
    return std::nullopt;
  return bound;
}

StateId JsonText::add_byte(StateId from, char c) {
  const StateId to = net_.add_state();
  net_.add_bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
  return to;
}

RuleId JsonText::shared(std::optional<RuleId>& rule, const char* name) {
  if (!rule) rule = net_.add_rule(name);
  return *rule;
}

StateId JsonText::add_space(StateId from) {
  const StateId to = net_.add_state();
  net_.add_call(from, shared(space_, "white space"), to);
  return to;
}

StateId JsonText::add_value(StateId from) {
  const StateId to = net_.add_state();
  net_.add_call(from, shared(value_, "any value"), to);
  return to;
}

StateId JsonText::add_string(StateId from) {
  const StateId to = net_.add_state();
  net_.add_call(from, shared(string_, "any string"), to);
  return to;
}

StateId JsonText::add_members(StateId from, char open, char close, bool has_keys) {
  const StateId to = net_.add_state();
  const StateId inside = add_space(add_byte(from, open));
  net_.add_bytes(inside, static_cast<uint8_t>(close), static_cast<uint8_t>(close), to);
  StateId at = net_.add_state();  // of a member
  net_.add_epsilon(inside, at);
  const StateId member = at;
  if (has_keys) at = add_space(add_byte(add_string(at), ':'));
  at = add_value(at);
  net_.add_epsilon(add_byte(add_space(at), close), to);
  net_.add_epsilon(add_space(add_byte(at, ',')), member);
  return to;
}

StateId JsonText::add_object(StateId from) { return add_members(from, '{', '}', true); }
StateId JsonText::add_array(StateId from) { return add_members(from, '[', ']', false); }

StateId JsonText::add_string_of_length(StateId from, int32_t min, int32_t max) {
  const auto add_one = [&](StateId s) {
    return add_characters(net_, s, CodePointSet::all(), Encoding::kJsonString);
  };
  return quote(add_repeated(net_, quote(from), min, max, false, add_one));
}

StateId JsonText::add_string_with(StateId from, const Regex& pattern) {
  return quote(add_regex_search(net_, quote(from), pattern, Encoding::kJsonString));
}

StateId JsonText::add_string_matching(StateId from, const Regex& whole) {
  return quote(add_regex(net_, quote(from), whole, Encoding::kJsonString));
}

StateId JsonText::add_quoted(StateId from, std::string_view utf8) {
  from = quote(from);
  for (size_t at = 0; at < utf8.size();) {
    const char32_t c = text::next_char(utf8, at);
    from = add_characters(net_, from, CodePointSet({{c, c}}), Encoding::kJsonString);
  }
  return quote(from);
}

StateId JsonText::add_key_other_than(StateId from, const std::vector<std::string>& keys) {
  // A tree of the keys: whoever leaves it may go on as he likes, whoever stays in it may end at any
  // place that is not a key's own end.
  struct Node {
    std::map<char32_t, size_t> children;
    bool is_key = false;
  };
  std::vector<Node> tree(1);
  for (const std::string& key : keys) {
    size_t node = 0;
    for (size_t at = 0; at < key.size();) {
      const char32_t c = text::next_char(key, at);
      const auto [child, is_new] = tree[node].children.emplace(c, tree.size());
      node = child->second;
      if (is_new) tree.emplace_back();
    }
    tree[node].is_key = true;
  }
  const auto add_set = [&](StateId s, const CodePointSet& set) {
    return add_characters(net_, s, set, Encoding::kJsonString);
  };
  const StateId end = net_.add_state();   // before the closing quote
  const StateId free = net_.add_state();  // outside of the tree
  net_.add_epsilon(free, end);
  net_.add_epsilon(add_set(free, CodePointSet::all()), free);
  std::vector<StateId> state_of_node(tree.size());
  state_of_node[0] = quote(from);
  for (size_t node = 0; node < tree.size() && !net_.is_full(); ++node) {
    const StateId state = state_of_node[node];
    if (!tree[node].is_key) net_.add_epsilon(state, end);
    std::vector<CodePointRange> taken;
    for (const auto& [c, child] : tree[node].children) {
      taken.push_back({c, c});
      state_of_node[child] = add_set(state, CodePointSet({{c, c}}));
    }
    net_.add_epsilon(add_set(state, CodePointSet(std::move(taken)).complement()), free);
  }
  return quote(end);
}

StateId JsonText::add_literal(StateId from, const OrderedJson& value) {
  if (value.is_string()) return add_quoted(from, value.get_ref<const std::string&>());
  if (!value.is_structured()) return add_text(net_, from, value.dump());
  const bool has_keys = value.is_object();
  from = add_space(add_byte(from, has_keys ? '{' : '['));
  bool is_first = true;
  for (const auto& [key, member] : value.items()) {
    if (!is_first) from = add_space(add_byte(from, ','));
    is_first = false;
    if (has_keys) from = add_space(add_byte(add_quoted(from, key), ':'));
    from = add_literal(from, member);
  }
  if (!is_first) from = add_space(from);
  return add_byte(from, has_keys ? '}' : ']');
}

StateId JsonText::add_digits(StateId from, int32_t min, int32_t max) {
  return add_repeated(net_, from, min, max, false, [&](StateId s) {
    const StateId to = net_.add_state();
    net_.add_bytes(s, '0', '9', to);
    return to;
  });
}

StateId JsonText::add_number(StateId from, bool is_integer) {
  // -?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?
  const StateId whole = net_.add_state();
  const StateId to = net_.add_state();
  const StateId sign = net_.add_state();
  net_.add_bytes(from, '-', '-', sign);
  for (const StateId begin : {from, sign}) {
    // "-0" is no integer that anybody means.
    if (begin == from || !is_integer) net_.add_bytes(begin, '0', '0', whole);
    const StateId first = net_.add_state();
    net_.add_bytes(begin, '1', '9', first);
    net_.add_epsilon(add_digits(first, 0, kMaxWholeDigits - 1), whole);
  }
  net_.add_epsilon(whole, to);
  if (is_integer) return to;
  const StateId fraction = add_digits(add_byte(whole, '.'), 1, kMaxFractionDigits);
  net_.add_epsilon(fraction, to);
  const StateId e = net_.add_state();
  for (const StateId before : {whole, fraction}) {
    net_.add_bytes(before, 'e', 'e', e);
    net_.add_bytes(before, 'E', 'E', e);
  }
  const StateId digits = net_.add_state();
  net_.add_epsilon(e, digits);
  net_.add_bytes(e, '+', '+', digits);
  net_.add_bytes(e, '-', '-', digits);
  net_.add_epsilon(add_digits(digits, 1, 2), to);
  return to;
}

StateId JsonText::add_number_between(StateId from, const std::optional<DecimalBound>& low,
                                     const std::optional<DecimalBound>& high, bool is_integer) {
  if (!low && !high) return add_number(from, is_integer);
  const StateId to = net_.add_state();
  const DecimalBound zero = {.whole = "0"};
  const DecimalBound above_zero = {.whole = "0", .is_inclusive = false};
  const auto add_side = [&](StateId begin, const DecimalBound& least,
                            const std::optional<DecimalBound>& most) {
    if (most && compare_magnitudes(least, *most) > 0) return;
    net_.add_epsilon(add_decimal_range(net_, begin, least, most, is_integer), to);
  };
  // From 0 up, and below 0 with the bounds' roles changed.
  if (!high || !high->is_negative) add_side(from, low && !low->is_negative ? *low : zero, high);
  if (!low || low->is_negative) {
    const StateId sign = net_.add_state();
    net_.add_bytes(from, '-', '-', sign);
    add_side(sign, high && high->is_negative ? *high : above_zero, low);
  }
  return to;
}

void JsonText::fill_space() {
  const StateId start = net_.add_state();
  const StateId line = net_.add_state();
  const StateId to = net_.add_state();
  net_.set_start(*space_, start);
  net_.set_final(to);
  net_.add_epsilon(start, to);
  net_.add_bytes(start, ' ', ' ', to);
  net_.add_bytes(start, '\n', '\n', line);
  const auto add_blank = [&](StateId s) {
    const StateId next = net_.add_state();
    net_.add_bytes(s, ' ', ' ', next);
    return next;
  };
  net_.add_epsilon(add_repeated(net_, line, 0, kMaxIndent, false, add_blank), to);
}

void JsonText::fill_string() {
  // Any escape, but no half of a surrogate pair: readers disagree about those.
  const StateId start = net_.add_state();
  const StateId end = net_.add_state();
  net_.set_start(*string_, start);
  net_.set_final(end);
  const StateId inside = quote(start);
  net_.add_bytes(inside, '"', '"', end);
  net_.add_epsilon(add_characters(net_, inside, in_strings(), Encoding::kUtf8), inside);
  const StateId escape = add_byte(inside, '\\');
  for (const char c : std::string_view("\"\\/bfnrt"))
    net_.add_bytes(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), inside);
  const auto add_hex = [&](StateId from, std::string_view ranges, StateId to) {
    for (size_t i = 0; i < ranges.size(); i += 2)
      net_.add_bytes(from, static_cast<uint8_t>(ranges[i]), static_cast<uint8_t>(ranges[i + 1]),
                     to);
  };
  constexpr std::string_view kHex = "09afAF";
  const StateId two = net_.add_state(), one = net_.add_state();
  add_hex(two, kHex, one);
  add_hex(one, kHex, inside);
  const StateId u = add_byte(escape, 'u');
  const StateId three = net_.add_state(), three_of_d = net_.add_state();
  add_hex(u, "09acefACEF", three);
  add_hex(three, kHex, two);
  add_hex(u, "ddDD", three_of_d);
  add_hex(three_of_d, "07", two);
  // \uD800 to \uDBFF, then \uDC00 to \uDFFF.
  const StateId high_two = net_.add_state(), high_one = net_.add_state();
  const StateId high = net_.add_state();
  add_hex(three_of_d, "89abAB", high_two);
  add_hex(high_two, kHex, high_one);
  add_hex(high_one, kHex, high);
  const StateId low = add_byte(add_byte(high, '\\'), 'u');
  const StateId low_three = net_.add_state();
  add_hex(low, "ddDD", low_three);
  add_hex(low_three, "cfCF", two);
}

void JsonText::fill_value() {
  const StateId start = net_.add_state();
  const StateId end = net_.add_state();
  net_.set_start(*value_, start);
  net_.set_final(end);
  for (const StateId to : {add_object(start), add_array(start), add_string(start),
                           add_number(start, false), add_text(net_, start, "true"),
                           add_text(net_, start, "false"), add_text(net_, start, "null")})
    net_.add_epsilon(to, end);
}

void JsonText::finish() {
  if (value_) fill_value();  // first: it needs the others
  if (string_) fill_string();
  if (space_) fill_space();
}

}  // namespace braid::grammar

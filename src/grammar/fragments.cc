#include "grammar/fragments.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"

namespace braid::grammar {
namespace {

// Sequences of one fragment, sharing their ends: those of all Unicode take 7 states instead of 20.
class SequenceTree {
 public:
  SequenceTree(NetworkBuilder& net, StateId to) : net_(net), to_(to) {}

  void add(StateId from, std::span<const ByteRange> sequence) {
    BRAID_CHECK(!sequence.empty());
    const auto rest = sequence.subspan(1);
    net_.add_bytes(from, sequence[0].first, sequence[0].last, rest.empty() ? to_ : state_of(rest));
  }

 private:
  StateId state_of(std::span<const ByteRange> rest) {
    const std::vector<ByteRange> key(rest.begin(), rest.end());
    const auto found = states_.find(key);
    if (found != states_.end()) return found->second;
    const StateId state = net_.add_state();
    states_.emplace(key, state);
    add(state, rest);
    return state;
  }

  NetworkBuilder& net_;
  StateId to_;
  std::map<std::vector<ByteRange>, StateId> states_;
};

constexpr char32_t kNumControls = 0x20;

CodePointSet needs_escape() {
  return CodePointSet({{0, kNumControls - 1}, {'"', '"'}, {'\\', '\\'}});
}

// What stands behind the backslash of a short escape; 0 where there is none.
char short_escape(char32_t c) {
  switch (c) {
    case '"':
    case '\\':
      return static_cast<char>(c);
    case '\b':
      return 'b';
    case '\f':
      return 'f';
    case '\n':
      return 'n';
    case '\r':
      return 'r';
    case '\t':
      return 't';
    default:
      return 0;
  }
}

void add_byte(NetworkBuilder& net, StateId from, char c, StateId to) {
  net.add_bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
}

// The escapes of these characters: \n and the like, or else \u00 and two digits.
void add_escapes(NetworkBuilder& net, StateId from, const CodePointSet& set, StateId to) {
  if (set.empty()) return;
  const StateId backslash = net.add_state();
  add_byte(net, from, '\\', backslash);
  std::optional<StateId> zeros;        // behind "u00"
  std::optional<StateId> sixteens[2];  // and one digit more
  for (const auto [first, last] : set.ranges()) {
    for (char32_t c = first; c <= last; ++c) {
      if (const char letter = short_escape(c)) {
        add_byte(net, backslash, letter, to);
        continue;
      }
      if (!zeros) zeros = add_text(net, backslash, "u00");
      auto& digit = sixteens[c / 16];
      if (!digit) digit = add_text(net, *zeros, c < 16 ? "0" : "1");
      add_byte(net, *digit, "0123456789abcdef"[c % 16], to);
    }
  }
}

bool is_nullable(const RegexNode& node) {
  switch (node.kind) {
    case RegexNode::Kind::kEmpty:
      return true;
    case RegexNode::Kind::kCharacters:
      return false;
    case RegexNode::Kind::kConcat:
      return std::ranges::all_of(node.parts, is_nullable);
    case RegexNode::Kind::kAlternate:
      return std::ranges::any_of(node.parts, is_nullable);
    case RegexNode::Kind::kRepeat:
      return node.min == 0 || is_nullable(node.parts.front());
  }
  BRAID_UNREACHABLE(static_cast<int>(node.kind));
}

StateId add_node(NetworkBuilder& net, StateId from, const RegexNode& node, Encoding encoding) {
  switch (node.kind) {
    case RegexNode::Kind::kEmpty:
      return from;
    case RegexNode::Kind::kCharacters:
      return add_characters(net, from, node.set, encoding);
    case RegexNode::Kind::kConcat:
      for (const RegexNode& part : node.parts) from = add_node(net, from, part, encoding);
      return from;
    case RegexNode::Kind::kAlternate: {
      const StateId to = net.add_state();
      for (const RegexNode& part : node.parts)
        net.add_epsilon(add_node(net, from, part, encoding), to);
      return to;
    }
    case RegexNode::Kind::kRepeat: {
      const RegexNode& part = node.parts.front();
      return add_repeated(net, from, node.min, node.max, is_nullable(part),
                          [&](StateId s) { return add_node(net, s, part, encoding); });
    }
  }
  BRAID_UNREACHABLE(static_cast<int>(node.kind));
}

StateId add_anything(NetworkBuilder& net, StateId from, Encoding encoding) {
  return add_repeated(net, from, 0, -1, false, [&](StateId s) {
    return add_characters(net, s, CodePointSet::all(), encoding);
  });
}

}  // namespace

StateId add_text(NetworkBuilder& net, StateId from, std::string_view bytes) {
  for (const char c : bytes) {
    const StateId to = net.add_state();
    net.add_bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    from = to;
  }
  return from;
}

StateId add_characters(NetworkBuilder& net, StateId from, const CodePointSet& set,
                       Encoding encoding) {
  const StateId to = net.add_state();
  SequenceTree tree(net, to);
  CodePointSet plain = set;
  if (encoding == Encoding::kJsonString) {
    plain = set.intersected(needs_escape().complement());
    add_escapes(net, from, set.intersected(needs_escape()), to);
  }
  std::vector<std::vector<ByteRange>> sequences;
  for (const CodePointRange range : plain.ranges()) append_utf8_sequences(range, sequences);
  for (const auto& sequence : sequences) tree.add(from, sequence);
  return to;
}

StateId add_repeated(NetworkBuilder& net, StateId from, int32_t min, int32_t max,
                     bool part_is_nullable, const std::function<StateId(StateId)>& add_part) {
  // A part that may be empty can always be so: fewer copies lose nothing.
  if (part_is_nullable) min = 0;
  const StateId to = net.add_state();
  const int32_t num_copies = max < 0 ? min : max;
  StateId first = -1, stride = 0;
  for (int32_t i = 0; i < num_copies && !net.is_full(); ++i) {
    const StateId begin = net.add_state();
    if (i == 0) first = begin;
    net.add_epsilon(from, begin);
    if (i >= min) net.add_epsilon(begin, to);
    from = add_part(begin);
    if (i == 0) stride = net.num_states() - first;
  }
  if (num_copies > 1 && !part_is_nullable) net.note_copies(first, stride, num_copies, min);
  if (max >= 0) {
    net.add_epsilon(from, to);
    return to;
  }
  const StateId loop = net.add_state();
  net.add_epsilon(from, loop);
  net.add_epsilon(loop, to);
  net.add_epsilon(add_part(loop), loop);
  return to;
}

StateId add_regex(NetworkBuilder& net, StateId from, const Regex& regex, Encoding encoding) {
  const StateId to = net.add_state();
  for (const Regex::Branch& branch : regex.branches)
    net.add_epsilon(add_node(net, from, branch.node, encoding), to);
  return to;
}

StateId add_regex_search(NetworkBuilder& net, StateId from, const Regex& regex, Encoding encoding) {
  const StateId to = net.add_state();
  for (const Regex::Branch& branch : regex.branches) {
    StateId at = branch.has_begin_anchor ? from : add_anything(net, from, encoding);
    at = add_node(net, at, branch.node, encoding);
    if (!branch.has_end_anchor) at = add_anything(net, at, encoding);
    net.add_epsilon(at, to);
  }
  return to;
}

}  // namespace braid::grammar

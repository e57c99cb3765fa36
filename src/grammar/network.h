#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace braid::grammar {

using StateId = int32_t;
using RuleId = int32_t;

struct ByteEdge {
  uint8_t first;
  uint8_t last;  // inclusive
  StateId to;
};

// Reads whatever the rule reads, then goes on at `to`.
struct CallEdge {
  RuleId rule;
  StateId to;
};

struct NetworkLimits {
  int32_t max_states = 200'000;
  int32_t max_edges = 1'000'000;
  int32_t max_depth = 64;  // rules inside each other
};

// A recursive transition network over bytes: one nondeterministic automaton a rule, whose edges
// read a byte, nothing, or a whole rule. It is a context-free grammar in the form that is easiest
// to run. Made by NetworkBuilder, then read-only.
//
// Every state kept leads to the end of its rule, so that whoever stays inside the network can
// always finish.
class Network {
 public:
  // Of state s. Ids are dense in [0, num_states()).
  std::span<const ByteEdge> byte_edges(StateId s) const { return slice(bytes_, byte_begin_, s); }
  std::span<const StateId> epsilons(StateId s) const { return slice(epsilons_, epsilon_begin_, s); }
  std::span<const CallEdge> calls(StateId s) const { return slice(calls_, call_begin_, s); }
  bool is_final(StateId s) const { return is_final_[s]; }
  int32_t num_states() const { return static_cast<int32_t>(is_final_.size()); }

  // Final and without edges: who returns there returns at once.
  bool only_returns(StateId s) const { return only_returns_[s]; }

  // Rules that must still be entered inside each other to reach the end of s's own rule.
  int32_t depth_needed(StateId s) const { return depth_needed_[s]; }

  // A state that allows the same texts of up to the max_token_bytes given to build(), equal for as
  // many states as could be found cheaply: the copies of a counted repetition away from its ends.
  StateId twin(StateId s) const { return twin_[s]; }

  RuleId root() const { return 0; }
  int32_t num_rules() const { return static_cast<int32_t>(starts_.size()); }

  // What can be read at the start of a rule: states with byte edges, and calls.
  std::span<const StateId> start_states(RuleId r) const { return starts_[r].states; }
  std::span<const CallEdge> start_calls(RuleId r) const { return starts_[r].calls; }
  int32_t start_depth(RuleId r) const { return starts_[r].depth_needed; }
  bool is_nullable(RuleId r) const { return starts_[r].is_nullable; }
  // Rises along start_calls: they have no cycle.
  int32_t start_order(RuleId r) const { return starts_[r].order; }

  // Bytes that no edge tells apart are one class.
  int32_t class_of(uint8_t byte) const { return class_of_byte_[byte]; }
  uint8_t member_of(int32_t byte_class) const { return member_of_class_[byte_class]; }
  int32_t num_classes() const { return static_cast<int32_t>(member_of_class_.size()); }

  int32_t max_depth() const { return max_depth_; }

  size_t bytes() const;  // of memory, about

 private:
  friend class NetworkBuilder;

  struct Start {
    std::vector<StateId> states;
    std::vector<CallEdge> calls;
    int32_t depth_needed = 0;
    int32_t order = 0;
    bool is_nullable = false;
  };

  template <class T>
  static std::span<const T> slice(const std::vector<T>& all, const std::vector<int32_t>& begin,
                                  StateId s) {
    return std::span(all).subspan(begin[s], begin[s + 1] - begin[s]);
  }

  std::vector<ByteEdge> bytes_;
  std::vector<StateId> epsilons_;
  std::vector<CallEdge> calls_;
  std::vector<int32_t> byte_begin_, epsilon_begin_, call_begin_;  // [num_states + 1]
  std::vector<bool> is_final_;
  std::vector<bool> only_returns_;
  std::vector<int32_t> depth_needed_;
  std::vector<StateId> twin_;
  std::vector<Start> starts_;
  std::array<uint8_t, 256> class_of_byte_ = {};
  std::vector<uint8_t> member_of_class_;
  int32_t max_depth_ = 0;
};

// Takes states and edges of one rule after the other; rule 0 is the root. When a limit is reached
// it takes nothing more (is_full), and build() says so: callers need not look at every step, but
// should stop long loops.
class NetworkBuilder {
 public:
  explicit NetworkBuilder(NetworkLimits limits = {});

  // A rule without states yet; `name` is for messages.
  RuleId add_rule(std::string name);
  void set_start(RuleId rule, StateId start) { rules_[rule].start = start; }
  void set_final(StateId state);

  StateId add_state();
  void add_bytes(StateId from, uint8_t first, uint8_t last, StateId to);
  void add_epsilon(StateId from, StateId to);
  void add_call(StateId from, RuleId rule, StateId to);

  // States [first, first + num_copies * stride) are copies of one part that reads at least a byte,
  // one behind the other; from the copy with index min on, the part may be left before each. Inner
  // repetitions are noted before outer ones.
  void note_copies(StateId first, int32_t stride, int32_t num_copies, int32_t min);

  bool is_full() const { return is_full_; }
  int32_t num_states() const { return static_cast<int32_t>(is_final_.size()); }

  // Cuts off what leads nowhere. Edges on bytes outside of `usable` count as leading nowhere.
  //
  // Errors  kInvalidArgument  a limit was reached; a rule that starts with itself; no text at all
  //                           is allowed, or only the empty one
  Result<Network> build(const std::array<bool, 256>& usable, int32_t max_token_bytes) const;

 private:
  struct Rule {
    std::string name;
    StateId start = -1;
  };
  struct Copies {
    StateId first;
    int32_t stride;
    int32_t num_copies;
    int32_t min;
  };
  template <class Edge>
  struct From {
    StateId from;
    Edge edge;
  };

  bool has_room_for_edge();
  struct Backwards;
  Backwards index_backwards() const;
  std::vector<bool> find_nullable(const Backwards& backwards) const;
  std::vector<int32_t> find_depths(const Backwards& backwards,
                                   const std::array<bool, 256>& usable) const;
  void fill_edges(Network& network, const std::array<bool, 256>& usable) const;
  void fill_starts(Network& network, const std::vector<bool>& nullable) const;
  Status order_starts(Network& network) const;
  void fill_twins(Network& network, int32_t max_token_bytes) const;
  static void fill_classes(Network& network);

  NetworkLimits limits_;
  bool is_full_ = false;
  std::vector<Rule> rules_;
  std::vector<bool> is_final_;
  std::vector<From<ByteEdge>> bytes_;
  std::vector<From<StateId>> epsilons_;
  std::vector<From<CallEdge>> calls_;
  std::vector<Copies> copies_;
};

}  // namespace braid::grammar

#pragma once

#include <cstdint>
#include <span>
#include <unordered_set>
#include <utility>
#include <vector>

#include "grammar/network.h"

namespace braid::grammar {

// The states that a network can be in after some bytes, made deterministic as they are met: a Place
// stands for all the ways in which the bytes so far can be read. A way is a state of the network
// and a Return: to whom its rule goes back, which is shared by all that called the rule at the same
// byte. So what is ambiguous costs width and does not multiply with depth.
//
// Places and returns are numbered as they are met and forgotten all at once by clear(). Not for
// several threads.
//
// Source: Tomita's graph-structured stack, with the subset construction on top.
class Automaton {
 public:
  using PlaceId = int32_t;
  using ReturnId = int32_t;

  static constexpr PlaceId kDead = 0;      // no text goes on from here
  static constexpr ReturnId kEnd = 0;      // behind it the text is over
  static constexpr ReturnId kOutside = 1;  // to whoever called: see inside()

  struct Way {
    StateId state;
    ReturnId back;
    bool operator==(const Way&) const = default;
    auto operator<=>(const Way&) const = default;
  };

  // `network` must outlive the automaton.
  explicit Automaton(const Network& network);

  // Before the first byte.
  PlaceId start();

  // Behind one more byte, or kDead; also when the work runs out, which is_exhausted() tells.
  PlaceId step(PlaceId place, uint8_t byte) {
    const int32_t byte_class = network_.class_of(byte);
    const PlaceId next = next_[place * int64_t{num_classes_} + byte_class];
    return next != kUnknown ? next : compute_step(place, byte_class);
  }

  // A place of these states, all of one rule, whose caller is left open: leaves() tells where the
  // rule may be over, and nothing of the caller is known. May be kDead.
  PlaceId inside(std::span<const StateId> states);

  // Where `back` goes on; kDead when the text is over there.
  PlaceId behind(ReturnId back);

  // Sorted by state.
  std::span<const Way> ways(PlaceId place) const {
    const Info& info = places_[place];
    return std::span(ways_).subspan(info.begin, info.end - info.begin);
  }
  bool may_end(PlaceId place) const { return places_[place].may_end; }
  bool leaves(PlaceId place) const { return places_[place].leaves; }
  bool goes_on(PlaceId place) const { return places_[place].end > places_[place].begin; }

  // The deepest nesting that any step from here made or would have made, counted from the end or
  // from inside(): what lies above network.max_depth() was cut off.
  int32_t reach(PlaceId place) const { return places_[place].reach; }
  int32_t depth(ReturnId back) const { return returns_[back].depth; }

  // How much may be done from now on, in ways looked at, until every call gives up with kDead.
  void allow_work(int64_t num_ways) { work_left_ = num_ways; }
  void count_work(int64_t num_ways) { work_left_ -= num_ways; }
  bool is_exhausted() const { return work_left_ < 0; }

  size_t bytes() const;
  void clear();

 private:
  static constexpr PlaceId kUnknown = -1;

  struct Link {
    StateId to;  // or kNoState: the end, or outside, as `back` says
    ReturnId back;
    bool operator==(const Link&) const = default;
    auto operator<=>(const Link&) const = default;
  };
  static constexpr StateId kNoState = -1;

  struct Return {
    int64_t begin = 0, end = 0;  // of links_
    int32_t depth = 0;
  };
  struct Info {
    int64_t begin = 0, end = 0;  // of ways_
    int32_t reach = 0;
    bool may_end = false;
    bool leaves = false;
  };
  // Ids whose contents are equal are one: sets that look through the id at the contents.
  struct HashReturn {
    const Automaton* owner;
    size_t operator()(ReturnId id) const;
    bool operator()(ReturnId a, ReturnId b) const;
  };
  struct HashPlace {
    const Automaton* owner;
    size_t operator()(PlaceId id) const;
    bool operator()(PlaceId a, PlaceId b) const;
  };
  // Pairs that were met while one place is made.
  class Visited {
   public:
    void clear();
    bool insert(Way way);

   private:
    void grow();
    std::vector<std::pair<uint64_t, uint32_t>> slots_;  // key, round
    uint32_t round_ = 0;
    size_t size_ = 0;
  };

  PlaceId compute_step(PlaceId place, int32_t byte_class);
  // The place of all that can be reached from `seeds_` and calls_ without a byte.
  PlaceId close();
  void enter_calls();
  void add_call(const CallEdge& call, ReturnId back);
  bool fits(int32_t depth, int32_t needed);
  ReturnId intern_return(std::vector<Link>& links);
  PlaceId intern_place(Info info);

  const Network& network_;
  int32_t num_classes_;
  int64_t work_left_ = 0;

  std::vector<Link> links_;
  std::vector<Return> returns_;
  std::vector<Way> ways_;
  std::vector<Info> places_;
  std::vector<PlaceId> next_;  // [place, byte class]
  std::unordered_set<ReturnId, HashReturn, HashReturn> known_returns_;
  std::unordered_set<PlaceId, HashPlace, HashPlace> known_places_;

  // While one place is made.
  int32_t reach_ = 0;
  std::vector<Way> seeds_;
  std::vector<Way> found_;
  Visited visited_;
  std::vector<std::vector<Link>> calls_;  // by rule: who has called it
  std::vector<RuleId> called_;            // rules with calls, a heap by start_order
};

}  // namespace braid::grammar

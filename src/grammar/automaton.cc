#include "grammar/automaton.h"

#include <algorithm>

#include "base/check.h"

namespace braid::grammar {
namespace {

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

uint64_t key_of(Automaton::Way way) {
  return static_cast<uint64_t>(static_cast<uint32_t>(way.state)) << 32 |
         static_cast<uint32_t>(way.back);
}

}  // namespace

size_t Automaton::HashReturn::operator()(ReturnId id) const {
  uint64_t hash = 1;
  const Return& r = owner->returns_[id];
  for (int64_t i = r.begin; i < r.end; ++i)
    hash = mix(hash, key_of({owner->links_[i].to, owner->links_[i].back}));
  return hash;
}

bool Automaton::HashReturn::operator()(ReturnId a, ReturnId b) const {
  const Return &x = owner->returns_[a], &y = owner->returns_[b];
  const auto links = owner->links_.begin();
  return std::equal(links + x.begin, links + x.end, links + y.begin, links + y.end);
}

size_t Automaton::HashPlace::operator()(PlaceId id) const {
  const Info& info = owner->places_[id];
  uint64_t hash = (info.may_end ? 2 : 0) + (info.leaves ? 1 : 0);
  for (int64_t i = info.begin; i < info.end; ++i) hash = mix(hash, key_of(owner->ways_[i]));
  return hash;
}

bool Automaton::HashPlace::operator()(PlaceId a, PlaceId b) const {
  const Info &x = owner->places_[a], &y = owner->places_[b];
  const auto ways = owner->ways_.begin();
  return x.may_end == y.may_end && x.leaves == y.leaves &&
         std::equal(ways + x.begin, ways + x.end, ways + y.begin, ways + y.end);
}

void Automaton::Visited::clear() {
  ++round_;
  size_ = 0;
  if (slots_.empty()) slots_.resize(256);
}

bool Automaton::Visited::insert(Way way) {
  if (size_ * 2 >= slots_.size()) grow();
  const uint64_t key = key_of(way);
  const size_t mask = slots_.size() - 1;
  for (size_t i = mix(0, key) & mask;; i = (i + 1) & mask) {
    if (slots_[i].second != round_) {
      slots_[i] = {key, round_};
      ++size_;
      return true;
    }
    if (slots_[i].first == key) return false;
  }
}

void Automaton::Visited::grow() {
  auto old = std::move(slots_);
  slots_.assign(old.size() * 2, {0, 0});
  const size_t mask = slots_.size() - 1;
  for (const auto& slot : old) {
    if (slot.second != round_) continue;
    size_t i = mix(0, slot.first) & mask;
    while (slots_[i].second == round_) i = (i + 1) & mask;
    slots_[i] = slot;
  }
}

Automaton::Automaton(const Network& network)
    : network_(network),
      num_classes_(network.num_classes()),
      known_returns_(16, HashReturn{this}, HashReturn{this}),
      known_places_(16, HashPlace{this}, HashPlace{this}),
      calls_(network.num_rules()) {
  clear();
}

void Automaton::clear() {
  known_returns_.clear();
  known_places_.clear();
  links_ = {{kNoState, kEnd}, {kNoState, kOutside}};
  returns_ = {{0, 1, 0}, {1, 2, 0}};
  known_returns_.insert(kEnd);
  known_returns_.insert(kOutside);
  ways_.clear();
  places_.clear();
  next_.clear();
  found_.clear();
  const PlaceId dead = intern_place({});
  BRAID_CHECK_EQ(dead, kDead);
  std::fill_n(next_.begin(), num_classes_, kDead);
}

size_t Automaton::bytes() const {
  return links_.size() * sizeof(Link) + returns_.size() * (sizeof(Return) + 48) +
         ways_.size() * sizeof(Way) + places_.size() * (sizeof(Info) + 48) +
         next_.size() * sizeof(PlaceId);
}

Automaton::PlaceId Automaton::start() {
  seeds_.clear();
  calls_[network_.root()].push_back({kNoState, kEnd});
  called_.push_back(network_.root());
  const bool may_end = network_.is_nullable(network_.root());
  const PlaceId place = close();
  return may_end ? intern_place({.may_end = true}) : place;  // of the ways still in found_
}

Automaton::PlaceId Automaton::inside(std::span<const StateId> states) {
  seeds_.clear();
  for (const StateId state : states) seeds_.push_back({state, kOutside});
  return close();
}

Automaton::PlaceId Automaton::behind(ReturnId back) {
  seeds_.clear();
  const Return& r = returns_[back];
  for (int64_t i = r.begin; i < r.end; ++i) {
    if (links_[i].to != kNoState) seeds_.push_back({links_[i].to, links_[i].back});
  }
  return close();
}

Automaton::PlaceId Automaton::compute_step(PlaceId place, int32_t byte_class) {
  const uint8_t byte = network_.member_of(byte_class);
  seeds_.clear();
  for (const Way& way : ways(place)) {
    for (const ByteEdge& edge : network_.byte_edges(way.state)) {
      if (edge.first <= byte && byte <= edge.last) seeds_.push_back({edge.to, way.back});
    }
  }
  work_left_ -= static_cast<int64_t>(ways(place).size());
  const PlaceId next = close();
  if (is_exhausted()) return kDead;
  places_[place].reach = std::max(places_[place].reach, reach_);
  next_[place * int64_t{num_classes_} + byte_class] = next;
  return next;
}

bool Automaton::fits(int32_t depth, int32_t needed) {
  reach_ = std::max(reach_, depth + needed);
  return depth + needed <= network_.max_depth();
}

Automaton::PlaceId Automaton::close() {
  Info info;
  reach_ = 0;
  found_.clear();
  visited_.clear();
  // First what needs no new rule. A rule that can be empty is passed by without being entered, so
  // nothing that is entered below returns at once.
  for (size_t i = 0; i < seeds_.size(); ++i) {
    const Way way = seeds_[i];
    if (!visited_.insert(way)) continue;
    if (--work_left_ < 0) break;
    if (!fits(returns_[way.back].depth, network_.depth_needed(way.state))) continue;
    if (!network_.byte_edges(way.state).empty()) found_.push_back(way);
    if (network_.is_final(way.state)) {
      const Return& r = returns_[way.back];
      for (int64_t k = r.begin; k < r.end; ++k) {
        const Link link = links_[k];
        if (link.to != kNoState) {
          seeds_.push_back({link.to, link.back});
        } else {
          (link.back == kEnd ? info.may_end : info.leaves) = true;
        }
      }
    }
    for (const StateId to : network_.epsilons(way.state)) seeds_.push_back({to, way.back});
    for (const CallEdge& call : network_.calls(way.state)) {
      if (network_.is_nullable(call.rule)) seeds_.push_back({call.to, way.back});
      add_call(call, way.back);
    }
  }
  enter_calls();
  if (is_exhausted()) return kDead;
  std::sort(found_.begin(), found_.end());
  found_.erase(std::unique(found_.begin(), found_.end()), found_.end());
  return intern_place(info);
}

void Automaton::add_call(const CallEdge& call, ReturnId back) {
  const int32_t depth = returns_[back].depth;
  auto& links = calls_[call.rule];
  const bool was_empty = links.empty();
  if (network_.only_returns(call.to)) {
    // The rule goes back to its caller's callers at once: nothing is stacked for it.
    if (!fits(depth, network_.start_depth(call.rule))) return;
    const Return& r = returns_[back];
    links.insert(links.end(), links_.begin() + r.begin, links_.begin() + r.end);
    work_left_ -= r.end - r.begin;
  } else {
    if (!fits(depth, network_.depth_needed(call.to)) ||
        !fits(depth + 1, network_.start_depth(call.rule)))
      return;
    links.push_back({call.to, back});
  }
  if (!was_empty) return;
  const auto later = [&](RuleId a, RuleId b) {
    return network_.start_order(a) > network_.start_order(b);
  };
  called_.push_back(call.rule);
  std::push_heap(called_.begin(), called_.end(), later);
}

void Automaton::enter_calls() {
  const auto later = [&](RuleId a, RuleId b) {
    return network_.start_order(a) > network_.start_order(b);
  };
  // In the order of start_order: whoever calls a rule at its own start stands before it, so all
  // callers are known when a rule is entered.
  while (!called_.empty()) {
    std::pop_heap(called_.begin(), called_.end(), later);
    const RuleId rule = called_.back();
    called_.pop_back();
    auto& links = calls_[rule];
    if (work_left_ >= 0) {
      const ReturnId back = intern_return(links);
      const int32_t depth = returns_[back].depth;
      for (const StateId state : network_.start_states(rule)) {
        if (fits(depth, network_.depth_needed(state))) found_.push_back({state, back});
      }
      for (const CallEdge& call : network_.start_calls(rule)) add_call(call, back);
      work_left_ -= static_cast<int64_t>(network_.start_states(rule).size() +
                                         network_.start_calls(rule).size() + 1);
    }
    links.clear();
  }
}

Automaton::ReturnId Automaton::intern_return(std::vector<Link>& links) {
  std::sort(links.begin(), links.end());
  links.erase(std::unique(links.begin(), links.end()), links.end());
  Return r = {.begin = static_cast<int64_t>(links_.size())};
  for (const Link& link : links) {
    links_.push_back(link);
    if (link.to != kNoState) r.depth = std::max(r.depth, returns_[link.back].depth + 1);
  }
  r.end = static_cast<int64_t>(links_.size());
  const auto id = static_cast<ReturnId>(returns_.size());
  returns_.push_back(r);
  const auto [known, is_new] = known_returns_.insert(id);
  if (!is_new) {
    returns_.pop_back();
    links_.resize(r.begin);
  }
  return *known;
}

Automaton::PlaceId Automaton::intern_place(Info info) {
  info.begin = static_cast<int64_t>(ways_.size());
  ways_.insert(ways_.end(), found_.begin(), found_.end());
  info.end = static_cast<int64_t>(ways_.size());
  const auto id = static_cast<PlaceId>(places_.size());
  places_.push_back(info);
  const auto [known, is_new] = known_places_.insert(id);
  if (is_new) {
    next_.resize(next_.size() + num_classes_, kUnknown);
    work_left_ -= num_classes_ / 8;  // for the memory, which is mostly this
  } else {
    places_.pop_back();
    ways_.resize(info.begin);
  }
  return *known;
}

}  // namespace braid::grammar

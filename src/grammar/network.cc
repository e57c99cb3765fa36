#include "grammar/network.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace braid::grammar {
namespace {

constexpr int32_t kNever = std::numeric_limits<int32_t>::max();

// Indices of `edges` by the state that key() gives: those of state s are at [begin[s], begin[s+1]).
struct Index {
  std::vector<int32_t> begin;
  std::vector<int32_t> edges;
};

template <class Edges, class Key>
Index index_by(const Edges& edges, int32_t num_states, Key&& key) {
  Index index;
  index.begin.assign(num_states + 1, 0);
  for (const auto& edge : edges) ++index.begin[key(edge) + 1];
  std::partial_sum(index.begin.begin(), index.begin.end(), index.begin.begin());
  index.edges.resize(edges.size());
  std::vector<int32_t> next(index.begin.begin(), index.begin.end() - 1);
  for (size_t i = 0; i < edges.size(); ++i)
    index.edges[next[key(edges[i])]++] = static_cast<int32_t>(i);
  return index;
}

template <class Body>
void for_each_at(const Index& index, StateId state, Body&& body) {
  for (int32_t i = index.begin[state]; i < index.begin[state + 1]; ++i) body(index.edges[i]);
}

}  // namespace

size_t Network::bytes() const {
  return bytes_.size() * sizeof(ByteEdge) + epsilons_.size() * sizeof(StateId) +
         calls_.size() * sizeof(CallEdge) + is_final_.size() * (5 * sizeof(int32_t) + 1);
}

NetworkBuilder::NetworkBuilder(NetworkLimits limits) : limits_(limits) {}

RuleId NetworkBuilder::add_rule(std::string name) {
  rules_.push_back({std::move(name), -1});
  return static_cast<RuleId>(rules_.size()) - 1;
}

void NetworkBuilder::set_final(StateId state) { is_final_[state] = true; }

StateId NetworkBuilder::add_state() {
  if (num_states() >= limits_.max_states) {
    is_full_ = true;
    return num_states() - 1;
  }
  is_final_.push_back(false);
  return num_states() - 1;
}

bool NetworkBuilder::has_room_for_edge() {
  const size_t num_edges = bytes_.size() + epsilons_.size() + calls_.size();
  if (num_edges >= static_cast<size_t>(limits_.max_edges)) is_full_ = true;
  return !is_full_;
}

void NetworkBuilder::add_bytes(StateId from, uint8_t first, uint8_t last, StateId to) {
  if (has_room_for_edge()) bytes_.push_back({from, {first, last, to}});
}

void NetworkBuilder::add_epsilon(StateId from, StateId to) {
  if (has_room_for_edge()) epsilons_.push_back({from, to});
}

void NetworkBuilder::add_call(StateId from, RuleId rule, StateId to) {
  if (has_room_for_edge()) calls_.push_back({from, {rule, to}});
}

void NetworkBuilder::note_copies(StateId first, int32_t stride, int32_t num_copies, int32_t min) {
  if (!is_full_ && stride > 0) copies_.push_back({first, stride, num_copies, min});
}

// What leads where, for those who start from the ends of rules.
struct NetworkBuilder::Backwards {
  Index epsilons_into;                              // of a state
  Index calls_into;                                 // of the state a call returns to
  std::vector<std::vector<int32_t>> calls_of_rule;  // [rules]
  std::vector<std::vector<RuleId>> rules_from;      // [states], those that start there
};

NetworkBuilder::Backwards NetworkBuilder::index_backwards() const {
  Backwards backwards = {
      .epsilons_into = index_by(epsilons_, num_states(), [](const auto& e) { return e.edge; }),
      .calls_into = index_by(calls_, num_states(), [](const auto& e) { return e.edge.to; }),
      .calls_of_rule = std::vector<std::vector<int32_t>>(rules_.size()),
      .rules_from = std::vector<std::vector<RuleId>>(num_states())};
  for (size_t i = 0; i < calls_.size(); ++i)
    backwards.calls_of_rule[calls_[i].edge.rule].push_back(static_cast<int32_t>(i));
  for (RuleId r = 0; r < static_cast<RuleId>(rules_.size()); ++r)
    backwards.rules_from[rules_[r].start].push_back(r);
  return backwards;
}

std::vector<bool> NetworkBuilder::find_nullable(const Backwards& backwards) const {
  // A state is nullable when its rule can end there without a byte.
  std::vector<bool> nullable = is_final_;
  std::vector<StateId> found;
  for (StateId s = 0; s < num_states(); ++s) {
    if (nullable[s]) found.push_back(s);
  }
  const auto mark = [&](StateId s) {
    if (nullable[s]) return;
    nullable[s] = true;
    found.push_back(s);
  };
  const auto& [epsilons_into, calls_into, calls_of_rule, rules_from] = backwards;
  const auto try_call = [&](int32_t i) {
    const auto& [from, edge] = calls_[i];
    if (nullable[edge.to] && nullable[rules_[edge.rule].start]) mark(from);
  };
  while (!found.empty()) {
    const StateId s = found.back();
    found.pop_back();
    for_each_at(epsilons_into, s, [&](int32_t i) { mark(epsilons_[i].from); });
    for_each_at(calls_into, s, try_call);
    for (const RuleId r : rules_from[s]) std::ranges::for_each(calls_of_rule[r], try_call);
  }
  return nullable;
}

std::vector<int32_t> NetworkBuilder::find_depths(const Backwards& backwards,
                                                 const std::array<bool, 256>& usable) const {
  // Knuth's generalisation of Dijkstra's algorithm: states are settled by rising depth, a call once
  // its rule and its return are settled. depth(call) = max(1 + depth(rule), depth(return)).
  std::vector<int32_t> depth(num_states(), kNever);
  std::vector<std::vector<StateId>> level(1);  // to settle, by depth
  const auto offer = [&](StateId s, int32_t value) {
    if (depth[s] <= value) return;
    depth[s] = value;
    if (level.size() <= static_cast<size_t>(value)) level.resize(value + 1);
    level[value].push_back(s);
  };
  for (StateId s = 0; s < num_states(); ++s) {
    if (is_final_[s]) offer(s, 0);
  }
  const Index bytes_into = index_by(bytes_, num_states(), [](const auto& e) { return e.edge.to; });
  const auto& [epsilons_into, calls_into, calls_of_rule, rules_from] = backwards;

  std::vector<bool> settled(num_states(), false);
  const auto try_call = [&](int32_t i) {
    const auto& [from, edge] = calls_[i];
    const StateId start = rules_[edge.rule].start;
    if (settled[edge.to] && settled[start]) offer(from, std::max(1 + depth[start], depth[edge.to]));
  };
  for (size_t value = 0; value < level.size(); ++value) {
    while (!level[value].empty()) {
      const StateId s = level[value].back();
      level[value].pop_back();
      if (settled[s]) continue;
      settled[s] = true;
      for_each_at(bytes_into, s, [&](int32_t i) {
        const auto& [from, edge] = bytes_[i];
        for (int byte = edge.first; byte <= edge.last; ++byte) {
          if (usable[byte]) return offer(from, depth[s]);
        }
      });
      for_each_at(epsilons_into, s, [&](int32_t i) { offer(epsilons_[i].from, depth[s]); });
      for_each_at(calls_into, s, try_call);
      for (const RuleId r : rules_from[s]) std::ranges::for_each(calls_of_rule[r], try_call);
    }
  }
  return depth;
}

void NetworkBuilder::fill_edges(Network& network, const std::array<bool, 256>& usable) const {
  const auto& depth = network.depth_needed_;
  // Runs of usable bytes, so that no edge covers an unusable one.
  std::vector<From<ByteEdge>> bytes;
  for (const auto& [from, edge] : bytes_) {
    if (depth[edge.to] == kNever) continue;
    for (int byte = edge.first; byte <= edge.last; ++byte) {
      if (!usable[byte]) continue;
      const int first = byte;
      while (byte < edge.last && usable[byte + 1]) ++byte;
      bytes.push_back({from, {static_cast<uint8_t>(first), static_cast<uint8_t>(byte), edge.to}});
    }
  }
  std::vector<From<StateId>> epsilons;
  for (const auto& e : epsilons_) {
    if (depth[e.edge] != kNever) epsilons.push_back(e);
  }
  std::vector<From<CallEdge>> calls;
  for (const auto& e : calls_) {
    if (depth[e.edge.to] != kNever && depth[rules_[e.edge.rule].start] != kNever)
      calls.push_back(e);
  }
  const auto put = [&](const auto& edges, auto& out, std::vector<int32_t>& begin) {
    Index index = index_by(edges, num_states(), [](const auto& e) { return e.from; });
    for (const int32_t i : index.edges) out.push_back(edges[i].edge);
    begin = std::move(index.begin);
  };
  put(bytes, network.bytes_, network.byte_begin_);
  put(epsilons, network.epsilons_, network.epsilon_begin_);
  put(calls, network.calls_, network.call_begin_);
  network.is_final_ = is_final_;
  network.only_returns_.resize(num_states());
  for (StateId s = 0; s < num_states(); ++s) {
    network.only_returns_[s] = is_final_[s] && network.byte_edges(s).empty() &&
                               network.epsilons(s).empty() && network.calls(s).empty();
  }
}

void NetworkBuilder::fill_starts(Network& network, const std::vector<bool>& nullable) const {
  std::vector<RuleId> seen_by(num_states(), -1);
  std::vector<StateId> to_visit;
  network.starts_.resize(rules_.size());
  for (RuleId r = 0; r < static_cast<RuleId>(rules_.size()); ++r) {
    auto& start = network.starts_[r];
    start.is_nullable = nullable[rules_[r].start];
    start.depth_needed = network.depth_needed_[rules_[r].start];
    const auto visit = [&](StateId s) {
      if (seen_by[s] == r) return;
      seen_by[s] = r;
      to_visit.push_back(s);
    };
    visit(rules_[r].start);
    while (!to_visit.empty()) {
      const StateId s = to_visit.back();
      to_visit.pop_back();
      if (!network.byte_edges(s).empty()) start.states.push_back(s);
      for (const StateId to : network.epsilons(s)) visit(to);
      for (const CallEdge& call : network.calls(s)) {
        start.calls.push_back(call);
        if (nullable[rules_[call.rule].start]) visit(call.to);
      }
    }
    std::ranges::sort(start.states);
  }
}

Status NetworkBuilder::order_starts(Network& network) const {
  // Kahn's algorithm on "rule r can start with rule c".
  std::vector<int32_t> num_callers(rules_.size(), 0);
  for (const auto& start : network.starts_) {
    for (const CallEdge& call : start.calls) ++num_callers[call.rule];
  }
  std::vector<RuleId> ready;
  for (RuleId r = 0; r < network.num_rules(); ++r) {
    if (num_callers[r] == 0) ready.push_back(r);
  }
  int32_t order = 0;
  while (!ready.empty()) {
    const RuleId r = ready.back();
    ready.pop_back();
    network.starts_[r].order = order++;
    for (const CallEdge& call : network.starts_[r].calls) {
      if (--num_callers[call.rule] == 0) ready.push_back(call.rule);
    }
  }
  if (order == network.num_rules()) return {};
  const auto stuck = std::ranges::find_if(num_callers, [](int32_t n) { return n > 0; });
  return fail(ErrorCode::kInvalidArgument, "{} refers to itself before anything is written",
              rules_[stuck - num_callers.begin()].name);
}

void NetworkBuilder::fill_twins(Network& network, int32_t max_token_bytes) const {
  auto& twin = network.twin_;
  twin.resize(num_states());
  std::iota(twin.begin(), twin.end(), 0);
  for (const Copies& c : copies_) {
    // From copy i a token reaches at most copy i + max_token_bytes: if neither the first copy that
    // may be left nor the last one lies that near, copies look alike.
    for (int64_t i = 0; i < c.num_copies; ++i) {
      const bool is_far_from_end = c.num_copies - i > max_token_bytes + 1;
      int64_t like = i;
      if (i < c.min && c.min - i > max_token_bytes + 1) like = 0;
      if (i >= c.min && is_far_from_end) like = c.min;
      if (like == i) continue;
      const auto begin = static_cast<StateId>(c.first + i * c.stride);
      const auto shift = static_cast<int32_t>((i - like) * c.stride);
      for (StateId s = begin; s < begin + c.stride; ++s) twin[s] = twin[s - shift];
    }
  }
}

void NetworkBuilder::fill_classes(Network& network) {
  std::array<bool, 257> begins = {};
  begins[0] = true;
  for (const ByteEdge& edge : network.bytes_) begins[edge.first] = begins[edge.last + 1] = true;
  for (int byte = 0; byte < 256; ++byte) {
    if (begins[byte]) network.member_of_class_.push_back(static_cast<uint8_t>(byte));
    network.class_of_byte_[byte] = static_cast<uint8_t>(network.member_of_class_.size() - 1);
  }
}

Result<Network> NetworkBuilder::build(const std::array<bool, 256>& usable,
                                      int32_t max_token_bytes) const {
  if (is_full_) {
    return fail(ErrorCode::kInvalidArgument,
                "it needs more than {} states or {} edges; bounds of repetitions and lengths count "
                "most, each repetition takes its part's states once more",
                limits_.max_states, limits_.max_edges);
  }
  for (const Rule& rule : rules_) BRAID_CHECK_GE(rule.start, 0);
  Network network;
  network.max_depth_ = limits_.max_depth;
  const Backwards backwards = index_backwards();
  network.depth_needed_ = find_depths(backwards, usable);
  const int32_t depth = network.depth_needed_[rules_[network.root()].start];
  if (depth == kNever) {
    return fail(ErrorCode::kInvalidArgument,
                "no finite text fits: a part of it is impossible, endless, or has characters that "
                "the model's tokens cannot write");
  }
  if (depth > limits_.max_depth) {
    return fail(ErrorCode::kInvalidArgument, "every text that fits nests {} levels, accepted is {}",
                depth, limits_.max_depth);
  }
  const auto nullable = find_nullable(backwards);
  fill_edges(network, usable);
  fill_starts(network, nullable);
  if (auto status = order_starts(network); !status) return pass_on(status);
  const auto& start = network.starts_[network.root()];
  if (start.states.empty() && start.calls.empty())
    return fail(ErrorCode::kInvalidArgument, "only the empty text fits");
  fill_twins(network, max_token_bytes);
  fill_classes(network);
  return network;
}

}  // namespace braid::grammar

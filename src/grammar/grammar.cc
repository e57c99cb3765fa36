#include "grammar/grammar.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace braid::grammar {

Grammar::Grammar(Network network, std::shared_ptr<const Vocabulary> vocabulary,
                 GrammarLimits limits)
    : network_(std::move(network)),
      vocabulary_(std::move(vocabulary)),
      limits_(limits),
      automaton_(network_),
      path_(vocabulary_->max_token_bytes() + 1) {}

// Steps through the subtrees of nodes [begin, end), whose parent stands at `from`, sets the tokens
// that live and calls on_place(node, place) at each node that lives. False when the work ran out.
template <class OnPlace>
bool Grammar::walk(int32_t begin, int32_t end, Automaton::PlaceId from,
                   std::vector<uint64_t>& words, OnPlace&& on_place) {
  if (begin == end) return true;
  const Vocabulary& vocabulary = *vocabulary_;
  path_[vocabulary.node(begin).depth - 1] = from;
  int64_t num_steps = 0;
  for (int32_t i = begin; i < end;) {
    const Vocabulary::Node& node = vocabulary.node(i);
    const Automaton::PlaceId before = path_[node.depth - 1];
    const Automaton::PlaceId place = automaton_.step(before, node.byte);
    ++num_steps;
    walk_reach_ = std::max(walk_reach_, automaton_.reach(before));
    if (place == Automaton::kDead) {
      if (automaton_.is_exhausted()) return false;
      i = node.end;
      continue;
    }
    path_[node.depth] = place;
    for (const int32_t token : vocabulary.tokens_at(i))
      words[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
    on_place(i, place);
    i = automaton_.goes_on(place) ? i + 1 : node.end;
  }
  automaton_.count_work(num_steps / 8);
  return !automaton_.is_exhausted();
}

const Grammar::InnerMask* Grammar::inner_mask(std::span<const Automaton::Way> ways) {
  std::vector<StateId> states;
  for (const Automaton::Way& way : ways) states.push_back(network_.twin(way.state));
  const Automaton::PlaceId place = automaton_.inside(states);
  if (automaton_.is_exhausted()) return nullptr;
  const auto known = inner_masks_.find(place);
  if (known != inner_masks_.end()) return &known->second;
  InnerMask mask;
  mask.words.resize((vocabulary_->size() + 63) / 64);
  walk_reach_ = 0;
  const auto on_place = [&](int32_t node, Automaton::PlaceId at) {
    if (automaton_.leaves(at)) mask.exits.push_back(node);
  };
  if (!walk(0, vocabulary_->num_nodes(), place, mask.words, on_place)) return nullptr;
  mask.reach = walk_reach_;
  mask_bytes_ += mask.words.size() * sizeof(uint64_t) + mask.exits.size() * sizeof(int32_t) + 128;
  return &inner_masks_.emplace(place, std::move(mask)).first->second;
}

bool Grammar::fill_mask(Automaton::PlaceId place, std::vector<uint64_t>& words) {
  const auto ignore = [](int32_t, Automaton::PlaceId) {};
  const auto by_place = automaton_.ways(place);
  std::vector<Automaton::Way> ways(by_place.begin(), by_place.end());
  std::ranges::stable_sort(ways, {}, &Automaton::Way::back);
  for (size_t begin = 0, end = 0; begin < ways.size(); begin = end) {
    const Automaton::ReturnId back = ways[begin].back;
    while (end < ways.size() && ways[end].back == back) ++end;
    const InnerMask* inner = inner_mask(std::span(ways).subspan(begin, end - begin));
    if (inner == nullptr) return false;
    if (automaton_.depth(back) + inner->reach > network_.max_depth()) {
      // So near to the depth limit the caller does matter.
      std::ranges::fill(words, 0);
      return walk(0, vocabulary_->num_nodes(), place, words, ignore);
    }
    for (size_t i = 0; i < words.size(); ++i) words[i] |= inner->words[i];
    const Automaton::PlaceId behind = automaton_.behind(back);
    if (automaton_.is_exhausted()) return false;
    if (!automaton_.goes_on(behind)) continue;
    for (const int32_t node : inner->exits) {
      if (!walk(node + 1, vocabulary_->node(node).end, behind, words, ignore)) return false;
    }
  }
  return true;
}

Result<std::shared_ptr<const Mask>> Grammar::mask_at(Automaton::PlaceId place) {
  const auto known = masks_.find(place);
  if (known != masks_.end()) return known->second;
  auto mask = std::make_shared<Mask>();
  mask->words.resize((vocabulary_->size() + 63) / 64);
  mask->may_end = automaton_.may_end(place);
  automaton_.allow_work(limits_.max_work);
  if (!fill_mask(place, mask->words)) {
    return fail(ErrorCode::kResourceExhausted,
                "the grammar can be read in too many ways at this point of the reply; make its "
                "alternatives and repetitions tell their texts apart earlier");
  }
  mask_bytes_ += mask->words.size() * sizeof(uint64_t) + 128;
  masks_.emplace(place, mask);
  cache_bytes_ = automaton_.bytes() + mask_bytes_;
  return mask;
}

void Grammar::make_room() {
  if (automaton_.bytes() + mask_bytes_ <= limits_.max_cache_bytes) return;
  automaton_.clear();
  inner_masks_.clear();
  masks_.clear();
  mask_bytes_ = 0;
  ++generation_;
}

Automaton::PlaceId Grammar::place_behind(const std::string& text) {
  // The text was let through before, each byte of it within the work of a mask.
  automaton_.allow_work(std::numeric_limits<int64_t>::max());
  Automaton::PlaceId place = automaton_.start();
  for (const char c : text) place = automaton_.step(place, static_cast<uint8_t>(c));
  return place;
}

Matcher::Matcher(std::shared_ptr<Grammar> grammar) : grammar_(std::move(grammar)) {
  const std::lock_guard lock(grammar_->mutex_);
  find_place();
  may_end_ = grammar_->automaton_.may_end(place_);
  goes_on_ = grammar_->automaton_.goes_on(place_);
}

void Matcher::find_place() {
  if (generation_ == grammar_->generation_) return;
  place_ = grammar_->place_behind(text_);
  generation_ = grammar_->generation_;
}

Result<std::shared_ptr<const Mask>> Matcher::mask() {
  const std::lock_guard lock(grammar_->mutex_);
  grammar_->make_room();
  find_place();
  return grammar_->mask_at(place_);
}

bool Matcher::push(int32_t token) {
  if (token < 0 || token >= grammar_->vocabulary_->size()) return false;
  const std::string_view bytes = grammar_->vocabulary_->piece(token);
  if (bytes.empty()) return false;
  const std::lock_guard lock(grammar_->mutex_);
  find_place();
  Automaton& automaton = grammar_->automaton_;
  automaton.allow_work(std::numeric_limits<int64_t>::max());
  Automaton::PlaceId place = place_;
  for (const char c : bytes) place = automaton.step(place, static_cast<uint8_t>(c));
  if (place == Automaton::kDead) return false;
  text_ += bytes;
  place_ = place;
  may_end_ = automaton.may_end(place);
  goes_on_ = automaton.goes_on(place);
  return true;
}

}  // namespace braid::grammar

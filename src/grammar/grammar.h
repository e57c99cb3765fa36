#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "grammar/automaton.h"
#include "grammar/network.h"
#include "grammar/vocabulary.h"

namespace braid::grammar {

// Which tokens may come next.
struct Mask {
  std::vector<uint64_t> words;  // [ceil(vocabulary size / 64)], bit id % 64 of word id / 64
  bool may_end = false;         // the text so far is whole

  bool allows(int32_t token) const {
    return (words[static_cast<size_t>(token) / 64] >> (token % 64) & 1u) != 0;
  }
};

struct GrammarLimits {
  int64_t max_work = 2'000'000;               // for one mask: tens of milliseconds
  size_t max_cache_bytes = size_t{16} << 20;  // what is kept between masks, then it starts anew
};

// A network held against a vocabulary. Masks are a function of the text alone; what was computed
// for one request serves all that share the grammar. From any thread.
//
// A mask is put together from those of the rules that are open: the tokens that stay inside the
// innermost rule do not depend on who called it, and are computed once; only the tokens that leave
// the rule on their way are read again behind it.
class Grammar {
 public:
  Grammar(Network network, std::shared_ptr<const Vocabulary> vocabulary, GrammarLimits limits = {});
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;

  const Vocabulary& vocabulary() const { return *vocabulary_; }

  // Of memory now, about; without the vocabulary.
  size_t bytes() const { return network_.bytes() + cache_bytes_; }

 private:
  friend class Matcher;

  // The mask of one rule's states without their callers.
  struct InnerMask {
    std::vector<uint64_t> words;
    std::vector<int32_t> exits;  // nodes of the vocabulary behind which the rule may be over
    int32_t reach = 0;           // of the places on the way
  };

  // All with mutex_ held.
  Automaton::PlaceId place_behind(const std::string& text);
  Result<std::shared_ptr<const Mask>> mask_at(Automaton::PlaceId place);
  bool fill_mask(Automaton::PlaceId place, std::vector<uint64_t>& words);
  const InnerMask* inner_mask(std::span<const Automaton::Way> ways);
  template <class OnPlace>
  bool walk(int32_t begin, int32_t end, Automaton::PlaceId from, std::vector<uint64_t>& words,
            OnPlace&& on_place);
  void make_room();

  const Network network_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  const GrammarLimits limits_;

  std::mutex mutex_;
  Automaton automaton_;
  std::atomic<size_t> cache_bytes_ = 0;  // of all that follows, after the last mask
  int64_t generation_ = 0;               // rises when the automaton forgets
  std::unordered_map<Automaton::PlaceId, InnerMask> inner_masks_;
  std::unordered_map<Automaton::PlaceId, std::shared_ptr<const Mask>> masks_;
  size_t mask_bytes_ = 0;
  std::vector<Automaton::PlaceId> path_;  // of a walk, by depth
  int32_t walk_reach_ = 0;                // of the places that walks stepped from
};

// Where one reply stands in a grammar. One thread at a time.
class Matcher {
 public:
  explicit Matcher(std::shared_ptr<Grammar> grammar);

  // Tokens that may come next. Never empty while !is_over(): each token that is allowed leaves a
  // text that can be finished with the tokens of the vocabulary.
  //
  // Errors  kResourceExhausted  the grammar can be read in too many ways here
  Result<std::shared_ptr<const Mask>> mask();

  // Takes a token's bytes. False when the grammar does not allow it: then nothing changes.
  bool push(int32_t token);

  bool may_end() const { return may_end_; }

  // The text is whole and nothing can follow.
  bool is_over() const { return may_end_ && !goes_on_; }

 private:
  void find_place();

  std::shared_ptr<Grammar> grammar_;
  std::string text_;
  int64_t generation_ = -1;
  Automaton::PlaceId place_ = Automaton::kDead;  // in that generation
  bool may_end_ = false;
  bool goes_on_ = true;
};

}  // namespace braid::grammar

#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace braid::text {

// Lets maps with string keys be asked with views.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

// Remembers the tokens of words that were encoded before: natural text repeats its words. Bounded:
// a full shard starts anew. Safe from any thread.
class WordCache {
 public:
  // Longer words are not kept: they seldom come twice.
  static constexpr size_t kMaxWordBytes = 48;

  // Appends the tokens of `word` to `out` when they are known.
  bool append(std::string_view word, std::vector<int32_t>& out) const;

  void remember(std::string_view word, const int32_t* tokens, size_t num_tokens);

 private:
  static constexpr size_t kShards = 16;
  static constexpr size_t kWordsPerShard = 4096;

  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, std::vector<int32_t>, StringHash, std::equal_to<>> words;
  };

  Shard& shard_of(std::string_view word) const { return shards_[StringHash()(word) % kShards]; }

  mutable std::array<Shard, kShards> shards_;
};

}  // namespace braid::text

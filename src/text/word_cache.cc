#include "text/word_cache.h"

namespace braid::text {

bool WordCache::append(std::string_view word, std::vector<int32_t>& out) const {
  Shard& shard = shard_of(word);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.words.find(word);
  if (found == shard.words.end()) return false;
  out.insert(out.end(), found->second.begin(), found->second.end());
  return true;
}

void WordCache::remember(std::string_view word, const int32_t* tokens, size_t num_tokens) {
  Shard& shard = shard_of(word);
  const std::lock_guard lock(shard.mutex);
  if (shard.words.size() >= kWordsPerShard) shard.words.clear();
  shard.words.emplace(word, std::vector<int32_t>(tokens, tokens + num_tokens));
}

}  // namespace braid::text

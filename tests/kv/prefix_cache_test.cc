#include "kv/prefix_cache.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <vector>

namespace braid {
namespace {

constexpr PrefixOwner kBase = {};
constexpr PrefixOwner kAdapter = {.is_adapter = true, .high = 1, .low = 2};

// A sequence as the engine keeps one: computes what the cache does not have, and registers it.
struct Sequence {
  std::vector<int32_t> blocks;
  int32_t num_cached = 0;
};

Sequence run(BlockPool& pool, PrefixCache& cache, const PrefixOwner& owner,
             const std::vector<int32_t>& tokens, int32_t block_size) {
  auto match = cache.match(owner, tokens);
  Sequence sequence{match.blocks, static_cast<int32_t>(match.blocks.size())};
  auto node = match.last;
  for (size_t begin = match.blocks.size() * block_size; begin + block_size <= tokens.size();
       begin += block_size) {
    const auto block = pool.allocate();
    if (!block) break;
    const auto inserted =
        cache.insert(owner, node, std::span(tokens).subspan(begin, block_size), *block);
    node = inserted.node;
    sequence.blocks.push_back(inserted.block);
  }
  return sequence;
}

void release(BlockPool& pool, const Sequence& sequence) {
  for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block)
    pool.release(*block);
}

TEST(PrefixCache, FindsTheLongestCommonStart) {
  BlockPool pool(8);
  PrefixCache cache(pool, 2);
  const auto first = run(pool, cache, kBase, {1, 2, 3, 4, 5, 6}, 2);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{1, 2, 3, 4, 9, 9}), 2);
  const auto second = run(pool, cache, kBase, {1, 2, 3, 4, 9, 9}, 2);
  EXPECT_EQ(second.num_cached, 2);
  EXPECT_EQ(second.blocks[1], first.blocks[1]);
  EXPECT_EQ(pool.num_refs(first.blocks[1]), 2);
  EXPECT_EQ(pool.num_held(), 4);
}

TEST(PrefixCache, IgnoresAnUnfinishedBlock) {
  BlockPool pool(8);
  PrefixCache cache(pool, 4);
  run(pool, cache, kBase, {1, 2, 3, 4}, 4);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{1, 2, 3}), 0);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{}), 0);
}

TEST(PrefixCache, KeepsOwnersApart) {
  BlockPool pool(8);
  PrefixCache cache(pool, 2);
  run(pool, cache, kAdapter, {1, 2, 3, 4}, 2);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{1, 2, 3, 4}), 0);
  EXPECT_EQ(cache.count_matching({.is_adapter = true, .high = 1, .low = 3},
                                 std::vector<int32_t>{1, 2, 3, 4}),
            0);
  EXPECT_EQ(cache.count_matching(kAdapter, std::vector<int32_t>{1, 2, 3, 4}), 2);
}

TEST(PrefixCache, FindsTheSameTokensOnlyAfterTheSameStart) {
  BlockPool pool(8);
  PrefixCache cache(pool, 2);
  run(pool, cache, kBase, {1, 2, 7, 7}, 2);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{3, 4, 7, 7}), 0);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{7, 7}), 0);
}

TEST(PrefixCache, SharesABlockThatTwoSequencesComputedAtOnce) {
  BlockPool pool(8);
  PrefixCache cache(pool, 2);
  const std::vector<int32_t> tokens = {1, 2};
  const int32_t a = *pool.allocate();
  const int32_t b = *pool.allocate();
  const auto first = cache.insert(kBase, PrefixCache::kRoot, tokens, a);
  const auto second = cache.insert(kBase, PrefixCache::kRoot, tokens, b);
  EXPECT_EQ(second.block, a);
  EXPECT_EQ(second.node, first.node);
  EXPECT_EQ(pool.num_refs(a), 2);
  EXPECT_EQ(pool.num_refs(b), 0);
}

TEST(PrefixCache, KeepsReleasedBlocksUntilTheyAreNeeded) {
  BlockPool pool(3);
  PrefixCache cache(pool, 1);
  release(pool, run(pool, cache, kBase, {1, 2, 3}, 1));
  EXPECT_EQ(pool.num_cached(), 3);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{1, 2, 3}), 3);
  pool.allocate();  // takes the end of the chain first
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{1, 2, 3}), 2);
  EXPECT_EQ(cache.num_nodes(), 2);
}

TEST(PrefixCache, IsRightWhenEveryHashCollides) {
  BlockPool pool(8);
  PrefixCache cache(pool, 2, [](std::span<const std::byte>) { return uint64_t{42}; });
  const auto first = run(pool, cache, kBase, {1, 2, 3, 4}, 2);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{1, 2}), 1);
  EXPECT_EQ(cache.count_matching(kBase, std::vector<int32_t>{3, 4}), 0);
  EXPECT_EQ(cache.count_matching(kAdapter, std::vector<int32_t>{1, 2}), 0);
  const auto second = run(pool, cache, kAdapter, {1, 2, 3, 4}, 2);
  EXPECT_EQ(second.num_cached, 0);
  release(pool, first);
  release(pool, second);
  EXPECT_EQ(pool.num_available(), 8);
}

// Whatever runs and ends in whatever order, under eviction and with bad hashes: a hit is exactly
// the tokens asked for under the same owner, and nothing is leaked.
TEST(PrefixCache, NeverGivesAWrongBlockOrLeaks) {
  EXPECT_TRUE(rc::check("prefix cache against block contents", [] {
    const int32_t num_blocks = *rc::gen::inRange(1, 10);
    const int32_t block_size = *rc::gen::inRange(1, 3);
    const bool bad_hash = *rc::gen::arbitrary<bool>();
    BlockPool pool(num_blocks);
    PrefixCache cache(pool, block_size,
                      bad_hash ? PrefixCache::HashFunction([](std::span<const std::byte> bytes) {
                        return static_cast<uint64_t>(bytes.back()) % 2;
                      })
                               : PrefixCache::HashFunction());
    // What stands in a block: owner and all tokens up to its end.
    std::map<int32_t, std::pair<bool, std::vector<int32_t>>> contents;
    std::vector<Sequence> running;
    const auto steps =
        *rc::gen::container<std::vector<std::pair<int, std::vector<int>>>>(rc::gen::pair(
            rc::gen::inRange(0, 6), rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 2))));
    for (const auto& [what, tokens] : steps) {
      if (what < 2 && !running.empty()) {
        const size_t index = tokens.size() % running.size();
        release(pool, running[index]);
        running.erase(running.begin() + index);
        continue;
      }
      const bool is_adapter = what % 2 == 1;
      const auto sequence = run(pool, cache, is_adapter ? kAdapter : kBase,
                                {tokens.begin(), tokens.end()}, block_size);
      for (size_t i = 0; i < sequence.blocks.size(); ++i) {
        const std::pair<bool, std::vector<int32_t>> expected = {
            is_adapter, {tokens.begin(), tokens.begin() + (i + 1) * block_size}};
        if (static_cast<int32_t>(i) < sequence.num_cached) {
          RC_ASSERT(contents.at(sequence.blocks[i]) == expected);
        } else {
          contents[sequence.blocks[i]] = expected;
        }
      }
      running.push_back(sequence);
    }
    for (const auto& sequence : running) release(pool, sequence);
    RC_ASSERT(pool.num_held() == 0);
    RC_ASSERT(pool.num_available() == num_blocks);
    RC_ASSERT(cache.num_nodes() == pool.num_cached());
  }));
}

}  // namespace
}  // namespace braid

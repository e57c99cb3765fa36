#include "kv/block_pool.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

#include "base/check.h"

namespace braid {
namespace {

TEST(BlockPool, HandsOutEachBlockOnce) {
  BlockPool pool(3);
  EXPECT_EQ(pool.allocate(), 0);
  EXPECT_EQ(pool.allocate(), 1);
  EXPECT_EQ(pool.allocate(), 2);
  EXPECT_EQ(pool.allocate(), std::nullopt);
  EXPECT_EQ(pool.num_held(), 3);
}

TEST(BlockPool, EmptyPoolGivesNothing) {
  BlockPool pool(0);
  EXPECT_EQ(pool.allocate(), std::nullopt);
  EXPECT_EQ(pool.num_available(), 0);
}

TEST(BlockPool, ReleasesWithTheLastReference) {
  BlockPool pool(1);
  const int32_t block = *pool.allocate();
  pool.add_ref(block);
  pool.release(block);
  EXPECT_EQ(pool.allocate(), std::nullopt);
  pool.release(block);
  EXPECT_EQ(pool.allocate(), block);
}

TEST(BlockPool, DropsCachedBlocksAndNoOthers) {
  BlockPool pool(3);
  std::vector<int32_t> evicted;
  pool.set_on_evict([&](int32_t block) { evicted.push_back(block); });
  const int32_t held = *pool.allocate(), cached = *pool.allocate();
  pool.keep(held);
  pool.keep(cached);
  pool.release(cached);
  pool.drop_cached();
  EXPECT_EQ(evicted, std::vector<int32_t>{cached});
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(pool.num_available(), 2);
  EXPECT_EQ(pool.num_refs(held), 1);
  pool.release(held);
  EXPECT_EQ(pool.num_cached(), 1);
}

TEST(BlockPool, ThrowsOnDoubleRelease) {
  BlockPool pool(2);
  const int32_t block = *pool.allocate();
  pool.release(block);
  EXPECT_THROW(pool.release(block), InternalError);
  EXPECT_THROW(pool.release(-1), InternalError);
  EXPECT_THROW(pool.release(2), InternalError);
  EXPECT_THROW(pool.add_ref(block), InternalError);
  EXPECT_THROW(pool.keep(block), InternalError);
}

TEST(BlockPool, EvictsTheCachedBlockReleasedLongestAgo) {
  BlockPool pool(3);
  std::vector<int32_t> evicted;
  pool.set_on_evict([&](int32_t block) { evicted.push_back(block); });
  for (int32_t i = 0; i < 3; ++i) pool.keep(*pool.allocate());
  pool.release(1);
  pool.release(2);
  pool.release(0);
  EXPECT_EQ(pool.num_cached(), 3);
  pool.add_ref(2);  // a hit takes it out of the middle
  EXPECT_EQ(pool.allocate(), 1);
  EXPECT_EQ(pool.allocate(), 0);
  EXPECT_EQ(pool.allocate(), std::nullopt);
  EXPECT_EQ(evicted, (std::vector<int32_t>{1, 0}));
}

TEST(BlockPool, TakesFreeBlocksBeforeCachedOnes) {
  BlockPool pool(2);
  pool.keep(*pool.allocate());
  const int32_t other = *pool.allocate();
  pool.release(0);
  pool.release(other);
  EXPECT_EQ(pool.allocate(), other);
  EXPECT_EQ(pool.num_cached(), 1);
}

// Any sequence of operations keeps the books: every block is in one state, counts add up, and the
// pool agrees with a model made of plain vectors.
TEST(BlockPool, NeverLeaksOrHandsOutTwice) {
  EXPECT_TRUE(rc::check("block pool against a model", [] {
    const int32_t num_blocks = *rc::gen::inRange(1, 12);
    BlockPool pool(num_blocks);
    std::vector<int32_t> refs(num_blocks, 0);
    std::vector<bool> kept(num_blocks, false);
    std::vector<int32_t> cached;  // oldest first
    int32_t last_evicted = -1;
    pool.set_on_evict([&](int32_t block) { last_evicted = block; });
    const auto steps = *rc::gen::container<std::vector<std::pair<int, int>>>(
        rc::gen::pair(rc::gen::inRange(0, 4), rc::gen::inRange(0, 12)));
    for (const auto& [what, number] : steps) {
      const int32_t block = number % num_blocks;
      if (what == 0) {
        const auto got = pool.allocate();
        bool any_free = false;
        for (int32_t b = 0; b < num_blocks; ++b) any_free |= refs[b] == 0 && !kept[b];
        if (any_free) {
          RC_ASSERT(got && refs[*got] == 0 && !kept[*got]);
        } else if (!cached.empty()) {
          RC_ASSERT(got == cached.front() && last_evicted == cached.front());
          cached.erase(cached.begin());
        } else {
          RC_ASSERT(!got);
        }
        if (got) {
          refs[*got] = 1;
          kept[*got] = false;
        }
      } else if (what == 1 && (refs[block] > 0 || kept[block])) {
        pool.add_ref(block);
        if (refs[block]++ == 0) std::erase(cached, block);
      } else if (what == 2 && refs[block] > 0) {
        pool.release(block);
        if (--refs[block] == 0 && kept[block]) cached.push_back(block);
      } else if (what == 3 && refs[block] > 0) {
        pool.keep(block);
        kept[block] = true;
      }
      int32_t held = 0;
      for (int32_t b = 0; b < num_blocks; ++b) {
        RC_ASSERT(pool.num_refs(b) == refs[b]);
        held += refs[b] > 0;
      }
      RC_ASSERT(pool.num_held() == held);
      RC_ASSERT(pool.num_cached() == static_cast<int32_t>(cached.size()));
      RC_ASSERT(pool.num_available() == num_blocks - held);
    }
  }));
}

}  // namespace
}  // namespace braid

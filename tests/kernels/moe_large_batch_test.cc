// How large batches of the MoE layer are cut.

#include <gtest/gtest.h>

#include <set>

#include "kernels/moe_gemm/large_batch.h"

namespace braid::test {
namespace {

TEST(MoeLargeBatchTiles, AreAsFewAsCanBeAndAllButTheLastFull) {
  for (int32_t count = 1; count <= 20000; ++count) {
    const int32_t tiles = kernels::large_num_tiles(count), size = kernels::large_tile_tokens(count);
    ASSERT_EQ(tiles, (count + 255) / 256) << count;
    ASSERT_EQ(size, tiles > 1 ? kernels::kLargeTileTokens : count) << count;
    // The last has something, and at most as much as the others.
    ASSERT_LT((tiles - 1) * size, count) << count;
    ASSERT_GE(tiles * size, count) << count;
  }
  EXPECT_EQ(kernels::large_num_tiles(0), 0);
  EXPECT_EQ(kernels::large_tile_tokens(270), 256);
}

TEST(MoeLargeBatchTiles, OfMoreThanHalfHaveTwoEntries) {
  EXPECT_EQ(kernels::large_num_entries(1), 1);
  EXPECT_EQ(kernels::large_num_entries(128), 1);
  EXPECT_EQ(kernels::large_num_entries(129), 2);
  EXPECT_EQ(kernels::large_num_entries(256), 2);
}

// A lane's ranks are those of an mma fragment, and every element has a place of its own.
TEST(MoeLargeBatchRanks, LieInTheOrderOfLanes) {
  std::set<int32_t> u, v;
  for (int32_t rank = 0; rank < 16; ++rank) {
    for (const int32_t of_up : {0, 1}) {
      const int32_t at = kernels::large_u_element(rank, of_up);
      u.insert(at);
      EXPECT_EQ(at / 8, rank % 8 / 2);
      EXPECT_EQ(at / 4 % 2, of_up);
    }
    v.insert(kernels::large_v_element(rank));
    EXPECT_EQ(kernels::large_v_element(rank) / 4, rank % 8 / 2);
  }
  EXPECT_EQ(u.size(), 32u);
  EXPECT_EQ(*u.rbegin(), 31);
  EXPECT_EQ(v.size(), 16u);
  EXPECT_EQ(*v.rbegin(), 15);
}

}  // namespace
}  // namespace braid::test

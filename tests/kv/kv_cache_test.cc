#include "kv/kv_cache.h"

#include <gtest/gtest.h>

#include "base/check.h"

namespace braid {
namespace {

TEST(KvCache, LaysLayersEndToEnd) {
  const KvCacheShape shape = {
      .num_layers = 3, .num_blocks = 5, .block_size = 4, .num_kv_heads = 2, .head_dim = 8};
  KvCache cache(shape);
  const int64_t layer = 5 * 4 * 2 * 8;
  EXPECT_EQ(shape.bytes_per_block(), 2u * 4 * 3 * 4 * 2 * 8);
  EXPECT_EQ(cache.values(0) - cache.keys(0), layer);
  EXPECT_EQ(cache.keys(2) - cache.keys(0), 4 * layer);
  EXPECT_EQ(cache.values(2)[layer - 1], 0.0f);
}

TEST(KvCache, RefusesAnEmptyShape) { EXPECT_THROW(KvCache(KvCacheShape{}), InternalError); }

}  // namespace
}  // namespace braid

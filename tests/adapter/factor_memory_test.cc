#include "adapter/factor_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace braid {
namespace {

TEST(FactorMemory, KeepsFactorsApartAndOnCacheLines) {
  FactorMemory memory;
  // Past the first block and, with the last, past what any block holds.
  for (const size_t count : {size_t{1}, size_t{33}, size_t{0}, size_t{1} << 20, size_t{5},
                             size_t{3} << 20, size_t{40} << 20}) {
    const std::span<Bf16> factor = memory.allocate(count);
    ASSERT_EQ(factor.size(), count);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(factor.data()) % 64, 0u);
    std::ranges::fill(factor, Bf16{static_cast<uint16_t>(memory.factors().size())});
  }
  uint16_t order = 0;
  for (const std::span<Bf16> factor : memory.factors()) {
    ++order;
    EXPECT_TRUE(std::ranges::all_of(factor, [&](Bf16 v) { return v.bits == order; })) << order;
  }
  EXPECT_EQ(order, 7);
}

}  // namespace
}  // namespace braid

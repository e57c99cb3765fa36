#include "kernels/lora/adapter_order.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/check.h"
#include "base/ids.h"

namespace braid::kernels {
namespace {

struct HostOrder {
  std::vector<std::byte> bytes;
  AdapterOrder order;
};

HostOrder order_of(const std::vector<int32_t>& slots, int32_t num_slots) {
  const auto num_tokens = static_cast<int32_t>(slots.size());
  HostOrder made;
  made.bytes.assign(adapter_order_bytes(num_tokens, num_slots), std::byte{0xff});
  write_adapter_order(slots, num_slots, /*max_rank=*/24, made.bytes.data());
  made.order = adapter_order_at(made.bytes.data(), num_tokens, num_slots);
  return made;
}

TEST(AdapterOrder, SortsTheExampleOfItsHeader) {
  const HostOrder made = order_of({2, kNoAdapter, 0, 2, kNoAdapter, 2}, 3);
  const AdapterOrder& order = made.order;
  const std::vector<int32_t> token_of_row(order.token_of_row, order.token_of_row + 6),
      run_of_row(order.run_of_row, order.run_of_row + 6);
  EXPECT_EQ(token_of_row, (std::vector<int32_t>{2, 0, 3, 5, 1, 4}));
  EXPECT_EQ(run_of_row, (std::vector<int32_t>{0, 1, 1, 1, -1, -1}));
  ASSERT_EQ(*order.num_runs, 2);
  EXPECT_EQ(*order.max_rank, 24);
  EXPECT_EQ(order.runs[0].slot, 0);
  EXPECT_EQ(order.runs[1].slot, 2);
  EXPECT_EQ(order.runs[1].first_row, 1);
  EXPECT_EQ(order.runs[1].num_rows, 3);
}

TEST(AdapterOrder, CutsLongRunsAndKeepsToItsBound) {
  std::mt19937 random(1);
  for (const int32_t num_slots : {1, 3, 64}) {
    for (const int32_t num_tokens : {0, 1, 31, 32, 33, 500}) {
      std::vector<int32_t> slots;
      for (int32_t t = 0; t < num_tokens; ++t)
        slots.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(num_slots + 1)) - 1);
      const HostOrder made = order_of(slots, num_slots);
      const AdapterOrder& order = made.order;
      EXPECT_LE(*order.num_runs, order.max_runs);
      EXPECT_EQ(order.max_runs, max_adapter_runs(num_tokens, num_slots));
      std::vector<bool> seen(slots.size(), false);
      for (int32_t row = 0; row < num_tokens; ++row) {
        const auto token = static_cast<size_t>(order.token_of_row[row]);
        ASSERT_LT(token, slots.size());
        EXPECT_FALSE(seen[token]);
        seen[token] = true;
        const int32_t run = order.run_of_row[row];
        if (slots[token] == kNoAdapter) {
          EXPECT_EQ(run, -1);
          continue;
        }
        ASSERT_LT(run, *order.num_runs);
        EXPECT_EQ(order.runs[run].slot, slots[token]);
        EXPECT_LE(order.runs[run].first_row, row);
        EXPECT_LT(row, order.runs[run].first_row + order.runs[run].num_rows);
        EXPECT_LE(order.runs[run].num_rows, kMaxRunRows);
        if (row > 0) {
          EXPECT_GE(run, order.run_of_row[row - 1]);
        }
      }
    }
  }
}

TEST(AdapterOrder, RefusesASlotThatIsNotThere) {
  std::vector<std::byte> bytes(adapter_order_bytes(2, 3));
  const std::vector<int32_t> slots = {0, 3};
  EXPECT_THROW(write_adapter_order(slots, 3, 24, bytes.data()), InternalError);
}

}  // namespace
}  // namespace braid::kernels

// AdapterResidency: who gets a slot, and memory beside it, and who makes room.

#include "engine/adapter_residency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/engine/fake_memory.h"

namespace braid::test {
namespace {

std::shared_ptr<const Adapter> adapter(uint64_t number) {
  auto made = std::make_shared<Adapter>();
  made->hash = {.high = 0, .low = number};
  made->layers.resize(1);
  return made;
}

class Residency : public testing::Test {
 protected:
  void open(int32_t num_slots, int64_t num_pages, int delay = 0) {
    memory.emplace(num_pages, delay);
    residency.emplace(num_slots, 1, &*memory);
  }
  std::optional<int32_t> acquire(uint64_t number) { return residency->acquire(adapters[number]); }
  // Used once and let go of.
  void use(uint64_t number) {
    const auto slot = acquire(number);
    ASSERT_TRUE(slot);
    residency->release(*slot);
  }
  std::vector<uint64_t> resident() const {
    std::vector<uint64_t> numbers;
    for (const AdapterHash& hash : residency->hashes()) numbers.push_back(hash.low);
    std::ranges::sort(numbers);
    return numbers;
  }

  std::vector<std::shared_ptr<const Adapter>> adapters = [] {
    std::vector<std::shared_ptr<const Adapter>> all;
    for (uint64_t i = 0; i < 16; ++i) all.push_back(adapter(i));
    return all;
  }();
  std::optional<FakeMemory> memory;
  std::optional<AdapterResidency> residency;
};

using testing::ElementsAre;

TEST_F(Residency, GivesEqualContentsOneSlot) {
  residency.emplace(2, 1);
  const auto slot = acquire(1);
  EXPECT_EQ(residency->acquire(adapter(1)), slot);
  EXPECT_NE(acquire(2), slot);
  EXPECT_EQ(acquire(3), std::nullopt);
}

TEST_F(Residency, EvictsWhatWasUsedLongestAgo) {
  open(3, 100);
  for (const uint64_t number : {1, 2, 3, 1}) use(number);
  use(4);
  EXPECT_THAT(resident(), ElementsAre(1, 3, 4));
}

TEST_F(Residency, EvictsAsManyAsMakeRoomAndNoMore) {
  open(8, 8);
  memory->sizes = {{4, 4}};
  for (const uint64_t number : {1, 2, 3, 5, 6, 7}) use(number);
  // Two pages are free, and two more beside them are needed.
  use(4);
  EXPECT_THAT(resident(), ElementsAre(3, 4, 5, 6, 7));
}

TEST_F(Residency, KeepsWhatIsInUseWhenMemoryIsFull) {
  open(8, 4);
  memory->sizes = {{4, 3}};
  const auto used = acquire(1);
  const auto also_used = acquire(2);
  use(3);
  // The large one finds no room beside those in use: nobody goes in vain.
  EXPECT_EQ(acquire(4), std::nullopt);
  EXPECT_THAT(resident(), ElementsAre(1, 2, 3));
  residency->release(*used);
  residency->release(*also_used);
  EXPECT_TRUE(acquire(4));
}

TEST_F(Residency, GivesASlotOnlyWhenItsAdapterHasArrived) {
  open(2, 2, /*delay=*/2);
  EXPECT_EQ(acquire(1), std::nullopt);
  EXPECT_TRUE(residency->holds({.high = 0, .low = 1}));
  memory->pass_time();
  EXPECT_EQ(acquire(1), std::nullopt);
  memory->pass_time();
  EXPECT_TRUE(acquire(1));
  EXPECT_EQ(memory->num_fills, 1);
}

TEST_F(Residency, LetsNobodyTakeTheSlotOfOneOnItsWay) {
  open(1, 2, /*delay=*/1);
  EXPECT_EQ(acquire(1), std::nullopt);
  EXPECT_EQ(acquire(2), std::nullopt);
  EXPECT_THAT(resident(), ElementsAre(1));
  EXPECT_TRUE(residency->wait_for_one());
  EXPECT_FALSE(residency->wait_for_one());
  EXPECT_TRUE(acquire(1));
}

TEST_F(Residency, GivesMemoryBackWithTheSlot) {
  open(4, 2);
  use(1), use(2);
  adapters[1].reset();
  residency->drop_removed();
  EXPECT_THAT(resident(), ElementsAre(2));
  use(3);
  EXPECT_THAT(resident(), ElementsAre(2, 3));
  // Books that start anew find all of it free.
  residency.emplace(4, 1, &*memory);
  memory->sizes = {{4, 2}};
  use(4);
  EXPECT_THAT(resident(), ElementsAre(4));
}

TEST_F(Residency, CountsWhatComesAndMakesRoom) {
  open(8, 8);
  memory->sizes = {{4, 4}};
  for (size_t number = 1; number < 9; ++number) {
    auto sized = std::make_shared<Adapter>(*adapters[number]);
    sized->bytes = 100 * number;
    adapters[number] = sized;
  }
  for (const uint64_t number : {1, 2, 3, 5, 6, 7, 1}) use(number);
  EXPECT_EQ(residency->counts().swaps, 6);
  EXPECT_EQ(residency->counts().evictions, 0);
  EXPECT_EQ(residency->counts().copied_bytes, 2400);
  use(4);
  EXPECT_EQ(residency->counts().swaps, 7);
  EXPECT_EQ(residency->counts().evictions, 2);
  EXPECT_EQ(residency->counts().copied_bytes, 2800);
  // Who was removed makes no room for anybody.
  adapters[1].reset();
  residency->drop_removed();
  EXPECT_EQ(residency->counts().evictions, 2);
  // Without memory of slots nothing is copied.
  residency.emplace(1, 1);
  use(2), use(3);
  EXPECT_EQ(residency->counts().swaps, 2);
  EXPECT_EQ(residency->counts().evictions, 1);
  EXPECT_EQ(residency->counts().copied_bytes, 0);
}

// Whatever comes and goes: who is in use stays, and who is alone fits.
TEST_F(Residency, HoldsUnderRandomTraffic) {
  std::mt19937 random(1);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  open(5, 12, /*delay=*/1);
  for (uint64_t number = 0; number < 16; ++number)
    memory->sizes[number] = 1 + static_cast<int64_t>(number) * 11 / 15;
  std::vector<std::pair<uint64_t, int32_t>> held;
  for (int i = 0; i < 20000; ++i) {
    const uint64_t number = below(16);
    if (const auto slot = acquire(number)) held.emplace_back(number, *slot);
    if (below(2) == 0) memory->pass_time();
    for (const auto& [held_number, slot] : held)
      ASSERT_EQ(residency->slots().get(slot)->hash.low, held_number);
    while (held.size() > 1 + below(6)) {
      const size_t gone = below(held.size());
      residency->release(held[gone].second);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(gone));
    }
    if (below(50) > 0) continue;
    for (const auto& [held_number, slot] : std::exchange(held, {})) residency->release(slot);
    while (residency->wait_for_one()) continue;
    if (!acquire(number)) {
      ASSERT_TRUE(residency->wait_for_one());
      ASSERT_TRUE(acquire(number));
    }
    residency->release(*acquire(number));
    residency->release(*acquire(number));
    while (residency->wait_for_one()) continue;
    held.clear();
    residency.emplace(5, 1, &*memory);
  }
}

}  // namespace
}  // namespace braid::test

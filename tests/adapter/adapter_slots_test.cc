// AdapterSlots: the arrays the kernels index, by layer, target and slot.

#include "adapter/adapter_slots.h"

#include <gtest/gtest.h>

#include "base/check.h"

namespace braid {
namespace {

std::shared_ptr<Adapter> make_adapter(int32_t num_layers, int32_t rank, bool with_experts) {
  auto adapter = std::make_shared<Adapter>();
  adapter->layers.resize(num_layers);
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    adapter->layers[layer].linear[static_cast<int>(LoraTarget::kVProj)].rank = rank + layer;
    if (with_experts) adapter->layers[layer].experts.resize(3);
  }
  adapter->lm_head.rank = rank;
  adapter->embedding.rank = rank;
  return adapter;
}

TEST(AdapterSlots, StartsEmpty) {
  const AdapterSlots slots(2, 3);
  EXPECT_EQ(slots.num_slots(), 2);
  for (int32_t slot = 0; slot < 2; ++slot) {
    EXPECT_EQ(slots.get(slot), nullptr);
    EXPECT_EQ(slots.linear(2, LoraTarget::kDownProj)[slot].rank, 0);
    EXPECT_EQ(slots.experts(2)[slot], nullptr);
    EXPECT_EQ(slots.lm_head()[slot].rank, 0);
    EXPECT_EQ(slots.embedding()[slot].rank, 0);
  }
}

TEST(AdapterSlots, PutsEachSlotIntoItsColumnAndEmptiesItAgain) {
  AdapterSlots slots(3, 2);
  const auto wide = make_adapter(2, 10, true), narrow = make_adapter(2, 20, false);
  slots.set(0, wide);
  slots.set(2, narrow);

  const LoraPair* v_proj = slots.linear(1, LoraTarget::kVProj);
  EXPECT_EQ(v_proj[0].rank, 11);
  EXPECT_EQ(v_proj[1].rank, 0);
  EXPECT_EQ(v_proj[2].rank, 21);
  EXPECT_EQ(slots.linear(1, LoraTarget::kKProj)[0].rank, 0);
  EXPECT_EQ(slots.experts(1)[0], wide->layers[1].experts.data());
  EXPECT_EQ(slots.experts(1)[2], nullptr);  // an adapter without experts
  EXPECT_EQ(slots.lm_head()[2].rank, 20);
  EXPECT_EQ(slots.embedding()[0].rank, 10);

  slots.set(0, nullptr);  // nothing of the old adapter may stay
  EXPECT_EQ(slots.linear(1, LoraTarget::kVProj)[0].rank, 0);
  EXPECT_EQ(slots.experts(1)[0], nullptr);
  EXPECT_EQ(slots.lm_head()[0].rank, 0);
  EXPECT_EQ(slots.embedding()[0].rank, 0);
  EXPECT_EQ(slots.linear(0, LoraTarget::kVProj)[2].rank, 20);
}

TEST(AdapterSlots, ReplacesAnAdapterThatHadMoreModules) {
  AdapterSlots slots(1, 2);
  slots.set(0, make_adapter(2, 4, true));
  slots.set(0, make_adapter(2, 8, false));
  EXPECT_EQ(slots.experts(0)[0], nullptr);
  EXPECT_EQ(slots.linear(0, LoraTarget::kVProj)[0].rank, 8);
}

TEST(AdapterSlots, RefusesAnAdapterOfAnotherModelAndUnknownPlaces) {
  AdapterSlots slots(1, 2);
  EXPECT_THROW(slots.set(0, make_adapter(3, 4, false)), InternalError);
  EXPECT_THROW(slots.set(1, nullptr), InternalError);
  EXPECT_THROW(slots.linear(2, LoraTarget::kQProj), InternalError);
  EXPECT_THROW(slots.experts(-1), InternalError);
}

}  // namespace
}  // namespace braid

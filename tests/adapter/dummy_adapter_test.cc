#include "adapter/dummy_adapter.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace braid {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.hidden_size = 64;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.intermediate_size = 96;
  config.moe_intermediate_size = 32;
  config.num_experts = 4;
  config.top_k = 2;
  config.is_moe_layer = {true, false};
  config.vocab_size = 100;
  return config;
}

TEST(DummyAdapter, SitsOnEveryModuleOfItsLayerKind) {
  const auto adapter = make_dummy_adapter(small_config(), "d", 3, 7);
  ASSERT_EQ(adapter->layers.size(), 2u);
  EXPECT_EQ(adapter->layers[0].experts.size(), 4u);
  EXPECT_EQ(adapter->layers[1].experts.size(), 0u);
  const auto rank = [&](size_t layer, LoraTarget target) {
    return adapter->layers[layer].linear[static_cast<size_t>(target)].rank;
  };
  EXPECT_EQ(rank(0, LoraTarget::kRouter), 3);
  EXPECT_EQ(rank(1, LoraTarget::kRouter), 0);
  EXPECT_EQ(rank(0, LoraTarget::kGateProj), 0);
  EXPECT_EQ(rank(1, LoraTarget::kGateProj), 3);
  EXPECT_EQ(rank(1, LoraTarget::kOProj), 3);
}

TEST(DummyAdapter, CountsItsBytes) {
  const auto adapter = make_dummy_adapter(small_config(), "d", 3, 7);
  const size_t attention = (64 + 64) + (32 + 64) + (32 + 64) + (64 + 64);
  const size_t router_and_experts = (4 + 64) + 4 * 3 * (32 + 64);
  const size_t dense = 3 * (96 + 64);
  EXPECT_EQ(adapter->bytes, 2 * 3 * (2 * attention + router_and_experts + dense));
}

std::span<const Bf16> first_factor(const Adapter& adapter) {
  return adapter.storage.front()->factors().front();
}

TEST(DummyAdapter, IsTheSameForTheSameSeedOnly) {
  const auto one = make_dummy_adapter(small_config(), "d", 3, 7);
  const auto same = make_dummy_adapter(small_config(), "d", 3, 7);
  const auto other = make_dummy_adapter(small_config(), "d", 3, 8);
  EXPECT_TRUE(std::ranges::equal(first_factor(*one), first_factor(*same)));
  EXPECT_FALSE(std::ranges::equal(first_factor(*one), first_factor(*other)));
  EXPECT_EQ(one->hash, same->hash);
  EXPECT_NE(one->hash, other->hash);
}

}  // namespace
}  // namespace braid

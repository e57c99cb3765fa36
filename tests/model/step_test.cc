// make_step and what it hands to the ops: adapters only where one of the step sits.

#include "model/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapter/dummy_adapter.h"
#include "base/check.h"
#include "base/ids.h"
#include "tests/model/tiny_models.h"

namespace braid::test {
namespace {

class StepAdapters : public testing::Test {
 protected:
  StepAdapters() : config_(tiny_mixtral()), slots_(4, config_.num_hidden_layers), kv_(shape()) {
    slots_.set(1,
               make_sparse_adapter(config_, 1));  // o_proj of the last layer, experts of the first
    slots_.set(3, make_dummy_adapter(config_, "all", 4, 2));
    weight_.matrix = {.rows = 8, .cols = 8};
  }

  KvCacheShape shape() const {
    return {.num_layers = config_.num_hidden_layers,
            .num_blocks = 1,
            .block_size = 4,
            .num_kv_heads = config_.num_key_value_heads,
            .head_dim = config_.head_dim};
  }
  Step step(const std::vector<int32_t>& slot_of_token) {
    batch_.token_ids.assign(slot_of_token.size(), 0);
    batch_.adapter_slot_of_token = slot_of_token;
    return make_step(context_, batch_, &slots_, kv_);
  }
  bool adapts(const Step& step, int32_t layer, LoraTarget target) {
    const auto p = linear_params(step, layer, target, weight_, nullptr, nullptr);
    EXPECT_EQ(p.num_slots, p.lora_of_slot != nullptr ? 4 : 0);
    EXPECT_EQ(p.adapter_slot_of_token != nullptr, p.lora_of_slot != nullptr);
    return p.lora_of_slot != nullptr;
  }

  ModelConfig config_;
  AdapterSlots slots_;
  KvCache kv_;
  ops::Context context_;
  ForwardBatch batch_;
  Weight weight_;
};

TEST_F(StepAdapters, AreThoseOfTheStepEachOnce) {
  EXPECT_THAT(step({3, kNoAdapter, 1, 3, 1}).used_slots, testing::ElementsAre(1, 3));
}

TEST_F(StepAdapters, AreNoneForBaseTokens) {
  const Step base = step({kNoAdapter, kNoAdapter});
  EXPECT_EQ(base.slots, nullptr);
  EXPECT_FALSE(adapts(base, 0, LoraTarget::kQProj));
}

TEST_F(StepAdapters, AreHandedOnWhereTheySit) {
  const Step sparse = step({1, kNoAdapter});
  const int32_t last = config_.num_hidden_layers - 1;
  EXPECT_TRUE(adapts(sparse, last, LoraTarget::kOProj));
  EXPECT_FALSE(adapts(sparse, 0, LoraTarget::kOProj));
  EXPECT_FALSE(adapts(sparse, last, LoraTarget::kQProj))
      << "slot 3 has it, but no token uses slot 3";
  EXPECT_TRUE(adapts(step({1, 3}), last, LoraTarget::kQProj));
}

TEST_F(StepAdapters, MustBeResident) {
  EXPECT_THROW(step({0}), InternalError);
  EXPECT_THROW(step({4}), InternalError);
}

}  // namespace
}  // namespace braid::test

// The references against numbers done by hand.

#include "reference/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/ids.h"

namespace braid::test {
namespace {

std::vector<Bf16> bf16(std::initializer_list<float> values) {
  std::vector<Bf16> out;
  for (const float x : values) out.push_back(to_bf16(x));
  return out;
}

WeightMatrix f32(const std::vector<float>& data, int32_t rows, int32_t cols) {
  return {.format = WeightFormat::kF32, .rows = rows, .cols = cols, .data = data.data()};
}

// Scales are powers of two, so that it can be followed: 448 and 1.05 are 448 and 1 in e4m3, their
// sum 449 lies between 448 and 450 in BF16. The adapter reads what was not rounded: 449.05 times
// 2^-8 is 1.75410, in BF16 1.7578125.
TEST(Reference, RoundsAsAGpu) {
  const float x[] = {448.0f, 1.05f}, scale[] = {1.0f};
  const uint8_t w[] = {0x38, 0x38};  // ones
  const Bf16 a[] = {to_bf16(1.0f), to_bf16(1.0f)}, b_t[] = {to_bf16(1.0f)};
  const LoraPair lora = {.a = a, .b_t = b_t, .rank = 1, .scaling = 0x1p-8f};
  const int32_t slot = 0;
  float y = 0;
  kernels::LinearParams p = {.x = x,
                             .x_stride = 2,
                             .w = {.format = WeightFormat::kFp8Block128,
                                   .rows = 1,
                                   .cols = 2,
                                   .data = w,
                                   .block_scale = scale},
                             .y = &y,
                             .y_stride = 1,
                             .num_tokens = 1,
                             .y_is_logits = true};
  reference::linear(p, Rounding::kBf16);
  EXPECT_EQ(y, 449.0f);
  p.lora_of_slot = &lora;
  p.adapter_slot_of_token = &slot;
  p.num_slots = 1;
  reference::linear(p, Rounding::kBf16);
  EXPECT_EQ(y, 449.0f + 1.7578125f);
  p.y_is_logits = false;
  reference::linear(p, Rounding::kBf16);
  EXPECT_EQ(y, 450.0f);
  p.lora_of_slot = nullptr;
  reference::linear(p, Rounding::kBf16);
  EXPECT_EQ(y, 448.0f);
}

TEST(LinearReference, AddsTheDeltaOfTheTokensAdapter) {
  const std::vector<float> w = {1, 2, 3, 4, 5, 6}, x = {1, 10, 2, 20};  // w [3, 2], x [2, 2]
  const std::vector<Bf16> a = bf16({1, -1}), b_t = bf16({1, 0, 2});     // rank 1
  const LoraPair lora = {.a = a.data(), .b_t = b_t.data(), .rank = 1, .scaling = 0.5f};
  const std::vector<int32_t> slots = {kNoAdapter, 0};
  std::vector<float> y(6, NAN);
  kernels::LinearParams p = {.x = x.data(),
                             .x_stride = 2,
                             .w = f32(w, 3, 2),
                             .y = y.data(),
                             .y_stride = 3,
                             .num_tokens = 2,
                             .lora_of_slot = &lora,
                             .adapter_slot_of_token = slots.data(),
                             .num_slots = 1};
  reference::linear(p);
  // Token 1: s = 0.5 * (2 - 20) = -9, delta = (-9, 0, -18).
  EXPECT_EQ(y, (std::vector<float>{21, 43, 65, 42 - 9, 86, 130 - 18}));
  const std::vector<int32_t> bad = {0, 1};
  p.adapter_slot_of_token = bad.data();
  EXPECT_THROW(reference::linear(p), InternalError);
}

TEST(MoeReference, WeighsBaseAndDeltaOnce) {
  // One hidden and one inner dimension, two experts; gate is large, so silu(g) is g to float.
  const std::vector<float> gate = {100}, up0 = {2}, up1 = {3}, down = {1};
  const std::vector<kernels::ExpertWeights> experts = {
      {f32(gate, 1, 1), f32(up0, 1, 1), f32(down, 1, 1)},
      {f32(gate, 1, 1), f32(up1, 1, 1), f32(down, 1, 1)}};
  const std::vector<Bf16> one = bf16({1});
  std::vector<ExpertLora> loras(2);
  loras[1].down = {.a = one.data(), .b_t = one.data(), .rank = 1, .scaling = 2.0f};
  const ExpertLora* lora_of_slot[] = {loras.data()};
  const std::vector<float> x = {1, 1}, weights = {0.25f, 0.5f, 1, 1};
  const std::vector<int32_t> ids = {0, 1, kNoExpert, 1}, slots = {0, kNoAdapter};
  std::vector<float> y(2, NAN);
  reference::moe({.x = x.data(),
                  .experts = experts.data(),
                  .topk_ids = ids.data(),
                  .topk_weights = weights.data(),
                  .y = y.data(),
                  .num_tokens = 2,
                  .top_k = 2,
                  .num_experts = 2,
                  .hidden_size = 1,
                  .moe_intermediate_size = 1,
                  .routed_scaling = 2.0f,
                  .lora_of_slot = lora_of_slot,
                  .adapter_slot_of_token = slots.data(),
                  .num_slots = 1});
  // Token 0: 2 * (0.25 * 200 + 0.5 * (300 + 2 * 300)); token 1: 2 * 300.
  EXPECT_EQ(y, (std::vector<float>{1000, 600}));
}

TEST(RouterReference, IsASoftmaxOverAllExperts) {
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};
  std::vector<int32_t> ids(2);
  std::vector<float> weights(2);
  kernels::RouterParams p = {.logits = logits.data(),
                             .topk_ids = ids.data(),
                             .topk_weights = weights.data(),
                             .num_tokens = 1,
                             .num_experts = 3,
                             .top_k = 2,
                             .norm_topk_prob = false};
  reference::router(p);
  EXPECT_EQ(ids, (std::vector<int32_t>{2, 1}));
  EXPECT_NEAR(weights[0], 0.625, 1e-6);
  EXPECT_NEAR(weights[1], 0.25, 1e-6);
  p.norm_topk_prob = true;
  reference::router(p);
  EXPECT_NEAR(weights[0], 5.0 / 7, 1e-6);
}

TEST(AttentionReference, FollowsTheBlockTableAndTheCausalMask) {
  // One head of one dimension, blocks of two; the keys are 0, so weights are equal.
  const std::vector<float> k(6), v = {7, 9, -1, -1, 1, 3}, q = {1, 1};
  const std::vector<int32_t> indptr = {0, 2}, context_len = {4}, table = {2, 0};
  std::vector<float> out(2, NAN);
  reference::attention({.q = q.data(),
                        .q_stride = 1,
                        .out = out.data(),
                        .k_cache = k.data(),
                        .v_cache = v.data(),
                        .query_indptr = indptr.data(),
                        .context_len = context_len.data(),
                        .block_table = table.data(),
                        .num_sequences = 1,
                        .max_kv_blocks = 2,
                        .block_size = 2,
                        .num_heads = 1,
                        .num_kv_heads = 1,
                        .head_dim = 1,
                        .softmax_scale = 1.0f});
  // The sequence's values are 1, 3, 7, 9: query 0 stands at position 2, query 1 at 3.
  EXPECT_FLOAT_EQ(out[0], 11.0f / 3);
  EXPECT_FLOAT_EQ(out[1], 5.0f);
}

TEST(RopeReference, TurnsByTheAngle) {
  std::vector<float> q = {1, 0}, k = {0, 2};
  const std::vector<float> v = {5, 6}, inv_freq = {1.5707964f};
  const std::vector<int32_t> position = {1}, slot = {1};
  std::vector<float> k_cache(4), v_cache(4);
  reference::rope_kv_write({.q = q.data(),
                            .k = k.data(),
                            .v = v.data(),
                            .q_stride = 2,
                            .k_stride = 2,
                            .v_stride = 2,
                            .inv_freq = inv_freq.data(),
                            .positions = position.data(),
                            .kv_slot_of_token = slot.data(),
                            .k_cache = k_cache.data(),
                            .v_cache = v_cache.data(),
                            .num_tokens = 1,
                            .num_heads = 1,
                            .num_kv_heads = 1,
                            .head_dim = 2,
                            .rotary_dim = 2});
  EXPECT_NEAR(q[0], 0, 1e-6);
  EXPECT_NEAR(q[1], 1, 1e-6);
  EXPECT_NEAR(k[0], -2, 1e-6);
  EXPECT_NEAR(k_cache[2], -2, 1e-6);
  EXPECT_EQ(v_cache[3], 6.0f);
  EXPECT_EQ(k_cache[0], 0.0f);
}

TEST(RmsNormReference, NormsTheSum) {
  std::vector<float> residual = {1, 2}, y(2, NAN);
  const std::vector<float> delta = {2, 2}, weight = {1, 10};
  reference::rms_norm({.residual = residual.data(),
                       .delta = delta.data(),
                       .weight = weight.data(),
                       .y = y.data(),
                       .num_tokens = 1,
                       .hidden_size = 2,
                       .eps = 0});
  EXPECT_EQ(residual, (std::vector<float>{3, 4}));
  EXPECT_FLOAT_EQ(y[0], 3 / std::sqrt(12.5f));
  EXPECT_FLOAT_EQ(y[1], 40 / std::sqrt(12.5f));
}

TEST(EmbeddingReference, AddsTheAdaptersRow) {
  const std::vector<float> table = {1, 2, 3, 4};
  const std::vector<Bf16> a_t = bf16({0, 10}), b = bf16({1, 2});
  const EmbeddingLora lora = {.a_t = a_t.data(), .b = b.data(), .rank = 1, .scaling = 0.5f};
  const std::vector<int32_t> ids = {1, 1}, slots = {kNoAdapter, 0};
  std::vector<float> out(4, NAN);
  kernels::EmbeddingParams p = {.token_ids = ids.data(),
                                .table = f32(table, 2, 2),
                                .out = out.data(),
                                .num_tokens = 2,
                                .lora_of_slot = &lora,
                                .adapter_slot_of_token = slots.data(),
                                .num_slots = 1};
  reference::embedding(p);
  EXPECT_EQ(out, (std::vector<float>{3, 4, 3 + 5, 4 + 10}));
  const std::vector<int32_t> bad = {2, 0};
  p.token_ids = bad.data();
  EXPECT_THROW(reference::embedding(p), InternalError);
}

TEST(SiluMulReference, IsGateTimesItsSigmoidTimesUp) {
  const std::vector<float> gate = {0, std::log(3.0f)}, up = {5, 4};
  std::vector<float> z(2, NAN);
  reference::silu_mul({.gate = gate.data(), .up = up.data(), .z = z.data(), .num_elements = 2});
  EXPECT_EQ(z[0], 0.0f);
  EXPECT_FLOAT_EQ(z[1], 3 * std::log(3.0f));
}

}  // namespace
}  // namespace braid::test

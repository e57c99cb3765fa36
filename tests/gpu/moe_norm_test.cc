// The norm inside the sum of a MoE layer, against the layer and the norm one after the other.

#include <gtest/gtest.h>

#include <random>

#include "kernels/elementwise/elementwise_bf16.h"
#include "tests/gpu/bf16_rows.h"
#include "tests/gpu/moe_layer_problem.h"
#include "tests/support/cuda.h"

namespace braid::test {
namespace {

using kernels::MoeLoraPlan;

struct NormCase {
  const char* name;
  LayerShape shape;
  int32_t padding = 0;  // of the hidden size
  MoeLoraPlan lora_plan = MoeLoraPlan::kFused;
};

void PrintTo(const NormCase& test, std::ostream* out) { *out << test.name; }

class MoeNorm : public testing::TestWithParam<NormCase> {};

TEST_P(MoeNorm, HasTheBitsOfTheSumAndTheNormApart) {
  BRAID_NEEDS_CUDA();
  LayerProblem problem(GetParam().shape, /*seed=*/5);
  problem.lora_plan = GetParam().lora_plan;
  problem.upload();
  const int32_t num_tokens = problem.shape.num_tokens, hidden = problem.shape.sizes.hidden_size;
  const auto count = static_cast<size_t>(num_tokens) * static_cast<size_t>(hidden);
  std::mt19937 random(6);
  const std::vector<Bf16> residual = random_bf16(random, count, 3.0f),
                          weight = random_bf16(random, static_cast<size_t>(hidden));
  const DeviceBuffer weight_device = DeviceBuffer::of(weight);
  const kernels::RmsNormBf16Params norm = {.weight = weight_device.as<Bf16>(),
                                           .num_tokens = num_tokens,
                                           .hidden_size = hidden,
                                           .mean_size = hidden - GetParam().padding,
                                           .eps = 1e-5f};
  const Stream stream;
  const ForkJoin side;
  const auto launch_layer = [&](const kernels::MoeLayerParams& p) {
    kernels::launch_moe_layer(p, problem.plan(), stream.get(), side.get());
  };
  const auto outputs = [&](const DeviceBuffer& rows) {
    std::vector<Bf16> values(count);
    rows.download_bytes(values.data(), count * sizeof(Bf16));
    return values;
  };

  // --- apart ---
  problem.poison();
  const DeviceBuffer residual_apart = DeviceBuffer::of(residual);
  const DeviceBuffer normed_apart = poisoned_bf16(count);
  const kernels::MoeLayerParams apart = problem.device_params();
  launch_layer(apart);
  kernels::RmsNormBf16Params behind = norm;
  behind.residual = residual_apart.as<Bf16>();
  behind.delta = apart.y;
  behind.y = normed_apart.as<Bf16>();
  kernels::launch_rms_norm(behind, stream.get());
  stream.wait();
  const std::vector<Bf16> y = problem.download_y();

  // --- inside, with y and without ---
  for (const bool keeps_y : {true, false}) {
    problem.poison();
    const DeviceBuffer residual_inside = DeviceBuffer::of(residual);
    const DeviceBuffer normed_inside = poisoned_bf16(count);
    kernels::MoeLayerParams inside = problem.device_params();
    inside.norm = {.residual = residual_inside.as<Bf16>(),
                   .weight = norm.weight,
                   .y = normed_inside.as<Bf16>(),
                   .mean_size = norm.mean_size,
                   .eps = norm.eps};
    if (!keeps_y) inside.y = nullptr;
    launch_layer(inside);
    stream.wait();
    EXPECT_EQ(outputs(residual_inside), outputs(residual_apart));
    EXPECT_EQ(outputs(normed_inside), outputs(normed_apart));
    if (keeps_y) {
      EXPECT_EQ(problem.download_y(), y);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, MoeNorm,
    testing::Values(
        NormCase{"one_token", {.num_tokens = 1}},
        NormCase{"padded", {.num_tokens = 20}, /*padding=*/64},
        NormCase{"nine_pairs_two_chunks",
                 {.num_tokens = 5,
                  .sizes = {.hidden_size = 2176,
                            .moe_intermediate_size = 128,
                            .num_experts = 12,
                            .num_shared_experts = 1,
                            .top_k = 8}}},
        NormCase{"seventeen_pairs_four_chunks",
                 {.num_tokens = 9,
                  .sizes = {.hidden_size = 4224,
                            .moe_intermediate_size = 128,
                            .num_experts = 20,
                            .num_shared_experts = 1,
                            .top_k = 16},
                  .ranks = {16, 8}}},
        NormCase{"serial", {.num_tokens = 33, .ranks = {16, 24}}, 0, MoeLoraPlan::kSerial},
        NormCase{"two_stream", {.num_tokens = 33, .ranks = {8}}, 0, MoeLoraPlan::kTwoStream}),
    testing::PrintToStringParamName());

TEST(MoeNormLimits, AreSaid) {
  // Nothing is read, so any address will do.
  alignas(16) char any[16];
  auto* const pointer = reinterpret_cast<Bf16*>(any);
  kernels::MoeLayerParams p = {
      .sizes = {.hidden_size = 128, .moe_intermediate_size = 128, .num_experts = 4, .top_k = 2},
      .num_tokens = 1,
      .x = pointer,
      .logits = reinterpret_cast<const float*>(any),
      .topk_ids = reinterpret_cast<int32_t*>(any)};
  EXPECT_EQ(why_unsupported(p), "y and norm.residual are null, need one");
  p.norm.residual = pointer;
  EXPECT_EQ(why_unsupported(p), "norm.weight or norm.y is null");
  p.norm.weight = p.norm.y = pointer;
  p.norm.mean_size = 129;
  EXPECT_EQ(why_unsupported(p), "norm.mean_size = 129, need 1 to hidden_size = 128");
}

}  // namespace
}  // namespace braid::test

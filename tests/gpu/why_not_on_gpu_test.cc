// What a GPU cannot run is said before anything is loaded. Needs no GPU.

#include <gtest/gtest.h>

#include "gpu/gpu_weights.h"
#include "tests/gpu/gpu_models.h"

namespace braid::test {
namespace {

TEST(WhyNotOnGpu, IsEmptyForModelsThatRun) {
  EXPECT_EQ(why_not_on_gpu(padded_mixtral()), "");
  EXPECT_EQ(why_not_on_gpu(mixed_qwen3_moe()), "");
  for (const QuantMethod method :
       {QuantMethod::kNone, QuantMethod::kModelOptNvfp4, QuantMethod::kCompressedTensorsNvfp4}) {
    ModelConfig config = padded_mixtral();
    config.quant_method = method;
    EXPECT_EQ(why_not_on_gpu(config), "");
  }
}

TEST(WhyNotOnGpu, NamesAWidthThatOnlyFp8ExpertsCanHave) {
  ModelConfig config = mixed_qwen3_moe();
  config.moe_intermediate_size = 4096;
  EXPECT_EQ(why_not_on_gpu(config), "");
  config.quant_method = QuantMethod::kNone;
  EXPECT_EQ(why_not_on_gpu(config),
            "moe_intermediate_size = 4096 with LoRA plan fused, need at most 2048 (bf16 experts)");
}

TEST(WhyNotOnGpu, NamesASizeThatKernelsCannotTake) {
  const auto why = [](auto&& change) {
    ModelConfig config = mixed_qwen3_moe();
    change(config);
    return why_not_on_gpu(config);
  };
  EXPECT_EQ(why([](auto& c) { c.num_experts = 4, c.top_k = 2; }),
            "router: shape.slice_out[0] = 4, need a multiple of 8");
  EXPECT_EQ(why([](auto& c) { c.intermediate_size = 200; }),
            "gate and up: shape.slice_out[0] = 200, need a multiple of 64");
  EXPECT_EQ(why([](auto& c) { c.num_experts = 600; }), "num_experts = 600, need 1 to 512");
  EXPECT_EQ(why([](auto& c) { c.head_dim = 80; }), "head_dim = 80, need 64, 96, 128 or 256");
}

}  // namespace
}  // namespace braid::test

#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/common/launch.h"
#include "kernels/moe_gemm/format_gemm.h"
#include "kernels/moe_gemm/sm90_moe_gemm.cuh"

namespace braid::kernels {

template <class Config>
void launch_gemm(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  static_assert(Config::kRingBytes >= 3 * Config::stage_bytes(Config::kTokens));
  static_assert(sizeof(GemmShared<Config>) <= Config::kSharedBytes);
  constexpr const char* kName = Config::kGateUp ? "moe_gate_up" : "moe_down";
  static const bool allowed = [] {
    allow_shared_bytes(kName, moe_gemm_kernel<Config>, sizeof(GemmShared<Config>));
    return true;
  }();
  (void)allowed;
  // No more CTAs than a small batch has use for: they would only be in the way of the next
  // kernel's.
  int num_ctas =
      Config::kCtasPerSm * plan.num_sms - (lora_is_apart(p, plan) ? plan.num_side_ctas : 0);
  if (plan.small_batch) {
    const int tiles =
        Config::kSmallBatch ? p.sizes.moe_intermediate_size / 64 : p.sizes.hidden_size / 128;
    const int units = tiles + (Config::kLora && Config::kSmallBatch ? kShrinkParts : 0);
    num_ctas = std::min(num_ctas, p.num_tokens * p.sizes.pairs_per_token() * units);
  }
  launch(kName, moe_gemm_kernel<Config>,
         {.grid = dim3(num_ctas),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(GemmShared<Config>)},
         stream, p,
         GemmPlan{.num_guessed_experts = plan.num_guessed_experts,
                  .num_prefetched_experts = plan.num_prefetched_experts,
                  .small_batch = plan.small_batch,
                  .tells_tiles = !plan.small_batch && !lora_is_apart(p, plan)});
}

// From the plan's tile to the kernel made for it.
template <MoeGemm kGemm, WeightFormat kFormat, bool kLora, bool kRaw = false>
void launch_gemm_for_tile(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const auto launch_for = [&]<int kTokens, bool kSmallBatch = false>() {
    launch_gemm<GemmConfig<kGemm, kFormat, kTokens, kLora, kSmallBatch, kRaw>>(p, plan, stream);
  };
  if constexpr (kGemm == MoeGemm::kGateUp && kFormat == WeightFormat::kFp8Block128 && !kRaw) {
    if (plan.small_batch) return launch_for.template operator()<kSmallBatchTokens, true>();
  }
  switch (plan.tile_tokens) {
    case 8:
      return launch_for.template operator()<8>();
    case 16:
      return launch_for.template operator()<16>();
    case 32:
      return launch_for.template operator()<32>();
    case 64:
      // With LoRA its accumulators and fragments would not fit in registers, nor its runs in the
      // lanes of a warp.
      if constexpr (!kLora && !kRaw) return launch_for.template operator()<64>();
  }
  throw std::logic_error("MoePlan: tile_tokens is " + std::to_string(plan.tile_tokens) +
                         ", need 8, 16, 32 or, without adapters, 64");
}

template <MoeGemm kGemm, WeightFormat kFormat>
void launch_format_gemm(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  if (p.adapters != nullptr && !lora_is_apart(p, plan)) {
    launch_gemm_for_tile<kGemm, kFormat, true>(p, plan, stream);
  } else {
    launch_gemm_for_tile<kGemm, kFormat, false>(p, plan, stream);
  }
}

}  // namespace braid::kernels

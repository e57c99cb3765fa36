#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/common/launch.h"
#include "kernels/moe_gemm/sm90_moe_gemm.cuh"

namespace braid::kernels {

template <MoeGemm kGemm, int kTokens, bool kLora, bool kSmallBatch = false, bool kRaw = false>
void launch_gemm(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  using Config = GemmConfig<kGemm, kTokens, kLora, kSmallBatch, kRaw>;
  static_assert(Config::kRingBytes >= 3 * Config::stage_bytes(kTokens));
  static_assert(sizeof(GemmShared<Config>) <= Config::kSharedBytes);
  constexpr const char* kName = kGemm == MoeGemm::kGateUp ? "moe_gate_up" : "moe_down";
  static const bool allowed = [] {
    allow_shared_bytes(kName, moe_fp8_gemm_kernel<Config>, sizeof(GemmShared<Config>));
    return true;
  }();
  (void)allowed;
  // No more CTAs than a small batch has use for: they would only be in the way of the next
  // kernel's.
  int num_ctas =
      Config::kCtasPerSm * plan.num_sms - (lora_is_apart(p, plan) ? plan.num_side_ctas : 0);
  if (plan.small_batch) {
    const int tiles = kSmallBatch ? p.sizes.moe_intermediate_size / 64 : p.sizes.hidden_size / 128;
    const int units = tiles + (kLora && kSmallBatch ? kShrinkParts : 0);
    num_ctas = std::min(num_ctas, p.num_tokens * p.sizes.pairs_per_token() * units);
  }
  launch(kName, moe_fp8_gemm_kernel<Config>,
         {.grid = dim3(num_ctas),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(GemmShared<Config>)},
         stream, p,
         GemmPlan{.num_guessed_experts = plan.num_guessed_experts,
                  .num_prefetched_experts = plan.num_prefetched_experts,
                  .small_batch = plan.small_batch});
}

// From the plan's tile to the kernel made for it.
template <MoeGemm kGemm, bool kLora, bool kRaw = false>
void launch_gemm_for_tile(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  if constexpr (kGemm == MoeGemm::kGateUp && !kRaw) {
    if (plan.small_batch)
      return launch_gemm<kGemm, kSmallBatchTokens, kLora, true>(p, plan, stream);
  }
  switch (plan.tile_tokens) {
    case 8:
      return launch_gemm<kGemm, 8, kLora, false, kRaw>(p, plan, stream);
    case 16:
      return launch_gemm<kGemm, 16, kLora, false, kRaw>(p, plan, stream);
    case 32:
      return launch_gemm<kGemm, 32, kLora, false, kRaw>(p, plan, stream);
    case 64:
      // With LoRA its accumulators and fragments would not fit in registers, nor its runs in the
      // lanes of a warp.
      if constexpr (!kLora && !kRaw) return launch_gemm<kGemm, 64, kLora>(p, plan, stream);
  }
  throw std::logic_error("MoePlan: tile_tokens is " + std::to_string(plan.tile_tokens) +
                         ", need 8, 16, 32 or, without adapters, 64");
}

// gate_up that stores its sums, compiled beside the others.
void launch_raw_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);

}  // namespace braid::kernels

// y[t] = sum over the token's pairs, in their order, of weight * pair_out, plus the same of deltas
// that down has not added.

#include <cuda_bf16.h>

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/mma.cuh"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {
namespace {

constexpr int kThreads = 256;

constexpr int kMaxPairs = 17;  // of a token: top_k and the shared expert

// A thread sums 8 outputs of one token.
template <bool kDelta>
__global__ __launch_bounds__(kThreads) void moe_sum_kernel(
    const __grid_constant__ MoeLayerParams p) {
  const int hidden8 = p.sizes.hidden_size / 8, per_token = p.sizes.pairs_per_token();
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int token = static_cast<int>(thread / hidden8), column = thread % hidden8 * 8;
  const MoeWorkspace& w = p.workspace;
  if (thread == 0) {
    // For the next layer, which counts from zero. gate_up has finished, and every CTA of down has
    // begun: it let this kernel start.
    if (!kDelta) w.counts->num_shrink_items = 0;
    w.counts->next_gate_up = 0;
    w.counts->arrived = w.counts->listed = 0;
    __threadfence();
  }
  let_next_kernel_start();
  // Rows and weights are routing's: the down kernel, which lets this one start, waited for it.
  int row[kMaxPairs];
  float weight[kMaxPairs];
  if (token < p.num_tokens) {
#pragma unroll
    for (int k = 0; k < kMaxPairs; ++k) {
      row[k] = k < per_token ? __ldcg(w.row_of_pair + int64_t{token} * per_token + k) : -1;
      weight[k] = k < per_token ? __ldcg(w.weight_of_pair + int64_t{token} * per_token + k) : 0.0f;
    }
  }
  wait_for_previous_kernel();
  // The LoRA kernels read it until they end.
  if (kDelta && thread == 0) w.counts->num_shrink_items = 0;
  if (token >= p.num_tokens) return;
  uint4 eight[kMaxPairs];
#pragma unroll
  for (int k = 0; k < kMaxPairs; ++k) {
    if (row[k] < 0) continue;
    eight[k] = __ldcg(reinterpret_cast<const uint4*>(
        w.pair_out + int64_t{row[k]} * p.sizes.hidden_size + column));
  }
  float sum[8] = {};
#pragma unroll
  for (int k = 0; k < kMaxPairs; ++k) {
    if (row[k] < 0) continue;
    const uint32_t two[4] = {eight[k].x, eight[k].y, eight[k].z, eight[k].w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 f = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&two[i]));
      sum[2 * i] += weight[k] * f.x, sum[2 * i + 1] += weight[k] * f.y;
    }
  }
  if constexpr (kDelta) {
    const int slot = p.adapter_slot_of_token[token];
    if (slot >= 0 && p.adapters[slot].rank_down > 0) {
#pragma unroll
      for (int k = 0; k < kMaxPairs; ++k) {
        if (row[k] < 0) continue;
        const float4* const at = reinterpret_cast<const float4*>(
            w.down_delta + int64_t{row[k]} * p.sizes.hidden_size + column);
        const float4 low = __ldcg(at), high = __ldcg(at + 1);
        const float delta[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] += weight[k] * delta[i];
      }
    }
  }
  *reinterpret_cast<uint4*>(p.y + int64_t{token} * p.sizes.hidden_size + column) =
      make_uint4(pack_bf16(sum[0], sum[1]), pack_bf16(sum[2], sum[3]), pack_bf16(sum[4], sum[5]),
                 pack_bf16(sum[6], sum[7]));
}

}  // namespace

void launch_moe_sum(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const int64_t threads = int64_t{p.num_tokens} * (p.sizes.hidden_size / 8);
  const bool apart = lora_is_apart(p, plan);
  launch("moe_sum", apart ? moe_sum_kernel<true> : moe_sum_kernel<false>,
         {.grid = dim3(static_cast<unsigned>((threads + kThreads - 1) / kThreads)),
          .cta = dim3(kThreads),
          .overlap_previous = !(apart && plan.lora_plan == MoeLoraPlan::kTwoStream)},
         stream, p);
}

}  // namespace braid::kernels

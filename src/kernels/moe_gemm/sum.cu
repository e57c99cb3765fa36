// y[t] = sum over the token's pairs, in their order, of weight * pair_out, plus the same of deltas
// that down has not added; and the norm that follows.

#include <cuda_bf16.h>

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/elementwise/norm_row.cuh"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {
namespace {

constexpr int kMaxPairs = 17;  // of a token: top_k and the shared expert

// One token a CTA. kBatch: pairs whose outputs are under way at once.
template <int kBatch, int kChunks, bool kDelta>
__global__ __launch_bounds__(kMaxNormThreads) void moe_sum_kernel(
    const __grid_constant__ MoeLayerParams p) {
  const int hidden = p.sizes.hidden_size, fours = hidden / 4;
  const int token = blockIdx.x, per_token = p.sizes.pairs_per_token();
  const bool is_first = token == 0 && threadIdx.x == 0;
  const MoeWorkspace& w = p.workspace;
  NormRow<kChunks> norm;
  if (p.norm.residual != nullptr) norm.load_weight(p.norm.weight, fours);
  if (is_first) {
    // For the next layer, which counts from zero. gate_up has finished, and every CTA of down has
    // begun: it let this kernel start.
    if (!kDelta) w.counts->num_shrink_items = 0;
    w.counts->next_gate_up = 0;
    w.counts->arrived = w.counts->listed = 0;
    __threadfence();
  }
  let_next_kernel_start();
  // Rows and weights are routing's: the down kernel, which lets this one start, waited for it.
  __shared__ int row[kMaxPairs];
  __shared__ float weight[kMaxPairs];
  if (static_cast<int>(threadIdx.x) < per_token) {
    const int64_t pair = int64_t{token} * per_token + threadIdx.x;
    row[threadIdx.x] = __ldcg(w.row_of_pair + pair);
    weight[threadIdx.x] = __ldcg(w.weight_of_pair + pair);
  }
  __syncthreads();
  bool has_delta = false;
  if constexpr (kDelta) {
    const int slot = p.adapter_slot_of_token[token];
    has_delta = slot >= 0 && p.adapters[slot].rank_down > 0;
  }
  wait_for_previous_kernel();
  if (is_first) w.counts->next_down = w.counts->gate_up_done = 0;
  // No more tiles than pairs.
  if (static_cast<int>(threadIdx.x) < per_token)
    w.h_ready[int64_t{token} * per_token + threadIdx.x] = 0;
  // The LoRA kernels read it until they end.
  if (kDelta && is_first) w.counts->num_shrink_items = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (!norm.has(c, fours)) continue;
    const int i = norm.at(c);
    float4 sum = {};
    const auto add = [&](float by, const float4& x) {
      sum.x += by * x.x, sum.y += by * x.y, sum.z += by * x.z, sum.w += by * x.w;
    };
#pragma unroll 1
    for (int first = 0; first < per_token; first += kBatch) {
      uint2 four[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (first + k < per_token && row[first + k] >= 0)
          four[k] = __ldcg(fours_of_row(w.pair_out, row[first + k], hidden) + i);
      }
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (first + k < per_token && row[first + k] >= 0)
          add(weight[first + k], floats_of(four[k]));
      }
    }
    if (kDelta && has_delta) {
#pragma unroll 1
      for (int k = 0; k < per_token; ++k) {
        if (row[k] < 0) continue;
        const float* const delta = w.down_delta + int64_t{row[k]} * hidden;
        add(weight[k], __ldcg(reinterpret_cast<const float4*>(delta) + i));
      }
    }
    const uint2 y = bf16_of(sum);
    if (p.y != nullptr) fours_of_row(p.y, token, hidden)[i] = y;
    if (p.norm.residual != nullptr) norm.add(fours_of_row(p.norm.residual, token, hidden), c, y);
  }
  if (p.norm.residual == nullptr) return;
  norm.store(fours_of_row(p.norm.y, token, hidden), fours, p.norm.eps, p.norm.mean_size);
}

template <int kBatch, int kChunks>
void launch_sum(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const bool apart = lora_is_apart(p, plan);
  launch("moe_sum",
         apart ? moe_sum_kernel<kBatch, kChunks, true> : moe_sum_kernel<kBatch, kChunks, false>,
         {.grid = dim3(static_cast<unsigned>(p.num_tokens)),
          .cta = dim3(static_cast<unsigned>(norm_shape(p.sizes.hidden_size).threads)),
          .overlap_previous = !(apart && plan.lora_plan == MoeLoraPlan::kTwoStream)},
         stream, p);
}

// A shared expert makes a ninth of eight.
template <int kChunks>
void launch_sum_of_pairs(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  p.sizes.pairs_per_token() <= 8 ? launch_sum<8, kChunks>(p, plan, stream)
                                 : launch_sum<9, kChunks>(p, plan, stream);
}

}  // namespace

void launch_moe_sum(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  switch (norm_shape(p.sizes.hidden_size).chunks) {
    case 1:
      return launch_sum_of_pairs<1>(p, plan, stream);
    case 2:
      return launch_sum_of_pairs<2>(p, plan, stream);
    default:
      return launch_sum_of_pairs<4>(p, plan, stream);
  }
}

}  // namespace braid::kernels

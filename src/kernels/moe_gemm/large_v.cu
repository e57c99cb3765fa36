// v = h A^T of large batches from the parts that gate_up has left, as BF16, in the order in which
// down reads it.

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/mma.cuh"
#include "kernels/moe_gemm/large_lora.cuh"

namespace braid::kernels {
namespace {

constexpr int kThreads = 256;

// A thread adds up four ranks of a pair's v over its parts, in their order.
__global__ __launch_bounds__(kThreads) void moe_large_v_kernel(
    const __grid_constant__ MoeLayerParams p) {
  const int thread = blockIdx.x * kThreads + threadIdx.x, per_token = p.sizes.pairs_per_token();
  const int pair = thread / 4, c = thread % 4, num_parts = p.sizes.moe_intermediate_size / 64;
  // Rows are routing's: gate_up, which lets this kernel start, waited for it.
  int row = -1, rank = 0;
  if (pair < p.num_tokens * per_token) {
    row = __ldcg(p.workspace.row_of_pair + pair);
    const int slot = p.adapter_slot_of_token[pair / per_token];
    if (slot >= 0) rank = p.adapters[slot].rank_down;
  }
  wait_for_previous_kernel();
  let_next_kernel_start();
  if (row < 0) return;
  for (int step = 0; 16 * step < rank; ++step) {
    const float* from = large_v_part(p, step, row, 0) + 2 * c;
    float2 low = {}, high = {};
#pragma unroll 8
    for (int i = 0; i < num_parts; ++i, from += 16) {
      const float2 a = __ldcg(reinterpret_cast<const float2*>(from));
      const float2 b = __ldcg(reinterpret_cast<const float2*>(from + 8));
      low.x += a.x, low.y += a.y, high.x += b.x, high.y += b.y;
    }
    *(reinterpret_cast<uint2*>(large_v_of(p, step, row)) + c) =
        make_uint2(pack_bf16(low.x, low.y), pack_bf16(high.x, high.y));
  }
}

}  // namespace

void launch_large_v(const MoeLayerParams& p, const MoePlan&, CudaStream stream) {
  const int pairs = p.num_tokens * p.sizes.pairs_per_token();
  launch("moe_large_v", moe_large_v_kernel,
         {.grid = dim3((4 * pairs + kThreads - 1) / kThreads), .cta = dim3(kThreads)}, stream, p);
}

}  // namespace braid::kernels

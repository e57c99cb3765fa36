// h = silu(gate) * up of what gate_up left and the adapters' deltas: a CTA takes 128 features of
// one tile, a warp a token.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/moe_lora/moe_lora.h"
#include "kernels/moe_lora/work.cuh"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {
namespace {

constexpr int kThreads = 128;

__global__ __launch_bounds__(kThreads) void moe_activation_kernel(
    const __grid_constant__ MoeLayerParams p) {
  // --- who am I ---
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const MoeWorkspace& w = p.workspace;
  const int width = p.sizes.moe_intermediate_size, depth = width / 128;
  let_next_kernel_start();
  const int num_units = __ldcg(&w.counts->num_tiles) * depth;
  // The tile, and of token `lane` whether its adapter has a delta.
  struct Work {
    MoeTokenTile tile;
    bool has_delta;
  };
  const auto load = [&](int unit) {
    Work work = {.tile = load_listed(w.tiles + unit / depth), .has_delta = false};
    if (lane < work.tile.num_tokens) {
      const int slot = p.adapter_slot_of_token[__ldcg(w.token_of_row + work.tile.first_row + lane)];
      work.has_delta = slot >= 0 && p.adapters[slot].rank_gate_up > 0;
    }
    return work;
  };
  Work next;
  if (blockIdx.x < num_units) next = load(blockIdx.x);
  wait_for_previous_kernel();

#pragma unroll 1
  for (int unit = blockIdx.x; unit < num_units; unit += gridDim.x) {
    const auto [tile, has_delta] = next;
    if (unit + gridDim.x < num_units) next = load(unit + gridDim.x);
    const int k128 = unit % depth, tokens8 = (tile.num_tokens + 7) / 8 * 8;
    const ActivationImage image =
        activation_image(tile.first_row, tile.num_tokens, depth, /*scales_per_row=*/2);
    uint8_t* const out = w.h_image + image.offset(k128);
    const unsigned with_delta = __ballot_sync(kAllLanes, has_delta);
#pragma unroll 1
    for (int n = warp; n < tile.num_tokens; n += kThreads / 32) {
      const int64_t row = tile.first_row + n;
      const int feature = 128 * k128 + 4 * lane;
      const auto load = [&](const float* from, int up) {
        return __ldcg(reinterpret_cast<const float4*>(from + (2 * row + up) * width + feature));
      };
      float4 gate = load(w.gate_up, 0), up = load(w.gate_up, 1);
      if (with_delta >> n & 1) {
        const float4 g = load(w.gate_up_delta, 0), u = load(w.gate_up_delta, 1);
        gate.x += g.x, gate.y += g.y, gate.z += g.z, gate.w += g.w;
        up.x += u.x, up.y += u.y, up.z += u.z, up.w += u.w;
      }
      // As gate_up does it where it does it itself.
      const auto silu = [](float x) { return __fdividef(x, 1.0f + __expf(-x)); };
      const uint2 four = {pack_bf16(silu(gate.x) * up.x, silu(gate.y) * up.y),
                          pack_bf16(silu(gate.z) * up.z, silu(gate.w) * up.w)};
      *reinterpret_cast<uint2*>(w.h + row * width + feature) = four;
      const float2 low = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.x));
      const float2 high = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.y));
      float amax = fmaxf(fmaxf(fabsf(low.x), fabsf(low.y)), fmaxf(fabsf(high.x), fabsf(high.y)));
      for (int step = 8; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, step));
      const float h_scale = e4m3_scale(amax), inverse = 1.0f / h_scale;
      *reinterpret_cast<__nv_fp8x4_e4m3*>(out + image.scale_bytes + swizzled(n, 4 * lane)) =
          __nv_fp8x4_e4m3(
              make_float4(low.x * inverse, low.y * inverse, high.x * inverse, high.y * inverse));
      if (lane % 16 == 0) reinterpret_cast<float*>(out)[lane / 16 * tokens8 + n] = h_scale;
    }
  }
}

}  // namespace

void launch_moe_activation(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const int pairs = p.num_tokens * p.sizes.pairs_per_token();
  const int tiles = std::min(pairs, pairs / plan.tile_tokens + p.sizes.all_experts());
  // Behind a join it has two predecessors.
  launch("moe_activation", moe_activation_kernel,
         {.grid = dim3(std::min(tiles * (p.sizes.moe_intermediate_size / 128), 12 * plan.num_sms)),
          .cta = dim3(kThreads),
          .overlap_previous = plan.lora_plan != MoeLoraPlan::kTwoStream},
         stream, p);
}

}  // namespace braid::kernels

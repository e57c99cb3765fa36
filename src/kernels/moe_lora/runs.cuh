#pragma once

// What the LoRA kernels know of a tile's runs: each lane keeps one, and all take them in turn.

#include <cstdint>

#include "kernels/common/mma.cuh"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "kernels/moe_lora/moe_lora.h"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {

// Tokens of a run, or of a tile with adapters, at most.
inline constexpr int kRunTokens = 32;
inline constexpr int kRunColumnTiles = kRunTokens / 8;

// The list that an earlier kernel wrote, past L1.
template <class T>
__device__ __forceinline__ T load_listed(const T* at) {
  static_assert(sizeof(T) % sizeof(int4) == 0);
  T entry;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / sizeof(int4)); ++i)
    reinterpret_cast<int4*>(&entry)[i] = __ldcg(reinterpret_cast<const int4*>(at) + i);
  return entry;
}

// `value` of that lane.
template <class T>
__device__ __forceinline__ T of_lane(const T& value, int lane) {
  static_assert(sizeof(T) % sizeof(int32_t) == 0);
  T out;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / sizeof(int32_t)); ++i) {
    reinterpret_cast<int32_t*>(&out)[i] =
        __shfl_sync(kAllLanes, reinterpret_cast<const int32_t*>(&value)[i], lane);
  }
  return out;
}

// Calls use(run) for each lane's run of a rank above 0, in the order of the lanes.
template <class Run, class Use>
__device__ __forceinline__ void for_each_run(const Run& mine, Use use) {
  for (unsigned left = __ballot_sync(kAllLanes, mine.rank > 0); left != 0; left &= left - 1)
    use(of_lane(mine, __ffs(left) - 1));
}

// One lane's part of a packed 16 x 16 fragment of A operands, read once; the half form has 8 rows
// (kHalfOf = 1) or 8 columns (kHalfOf = 2) and half the bytes.
template <int kHalfOf>
__device__ __forceinline__ uint4 load_factor(const uint8_t* fragment, bool whole, int lane) {
  if (whole) return __ldcs(reinterpret_cast<const uint4*>(fragment) + lane);
  const uint2 half = __ldcs(reinterpret_cast<const uint2*>(fragment) + lane);
  if constexpr (kHalfOf == 1) return make_uint4(half.x, 0, half.y, 0);
  return make_uint4(half.x, half.y, 0, 0);
}

// A step's 16 ranks of u: gate's parts, then up's. Of v.
__device__ __forceinline__ float* lora_u_of(const MoeLayerParams& p, int step, int row) {
  return p.workspace.lora_u +
         (int64_t{step} * p.workspace.num_u_rows + row) * (2 * kLoraParts * 16);
}
__device__ __forceinline__ float* lora_v_of(const MoeLayerParams& p, int step, int row) {
  return p.workspace.lora_v + (int64_t{step} * p.workspace.max_rows + row) * 16;
}

// Tiles at most, for grids.
inline int most_tiles(const MoeLayerParams& p, const MoePlan& plan) {
  const int pairs = p.num_tokens * p.sizes.pairs_per_token();
  const int other = pairs / plan.tile_tokens + p.sizes.all_experts();
  return pairs < other ? pairs : other;
}

}  // namespace braid::kernels

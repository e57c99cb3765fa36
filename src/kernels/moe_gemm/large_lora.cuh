#pragma once

// What the shrinks and the GEMMs of large batches share: the places of u and v, runs, fragments.

#include <cstdint>

#include "kernels/common/packed_fragment.cuh"
#include "kernels/moe_gemm/large_batch.h"
#include "kernels/moe_gemm/layout.h"

namespace braid::kernels {

// q(x) of a large batch, in MoeWorkspace::x_image: codes [T, H], and behind them scales [T, H /
// 128].
__device__ __forceinline__ uint8_t* large_x_codes(const MoeLayerParams& p) {
  return p.workspace.x_image;
}
__device__ __forceinline__ float* large_x_scales(const MoeLayerParams& p) {
  return reinterpret_cast<float*>(p.workspace.x_image +
                                  int64_t{p.num_tokens} * p.sizes.hidden_size);
}

// u of all rows, and behind it v, for each step of 16 ranks: in MoeWorkspace::u, which is larger.
static_assert((kLargeURowElements + kLargeVRowElements) * 2 <= kURowFloats * 4);

__device__ __forceinline__ Bf16* large_step_of(const MoeLayerParams& p, int step) {
  return reinterpret_cast<Bf16*>(p.workspace.u) +
         int64_t{step} * p.workspace.num_u_rows * (kLargeURowElements + kLargeVRowElements);
}
__device__ __forceinline__ Bf16* large_u_of(const MoeLayerParams& p, int step, int row) {
  return large_step_of(p, step) + int64_t{row} * kLargeURowElements;
}
__device__ __forceinline__ Bf16* large_v_of(const MoeLayerParams& p, int step, int row) {
  return large_step_of(p, step) + int64_t{p.workspace.num_u_rows} * kLargeURowElements +
         int64_t{row} * kLargeVRowElements;
}
// 16 ranks of one of the I / 64 parts of v, in MoeWorkspace::v.
__device__ __forceinline__ float* large_v_part(const MoeLayerParams& p, int step, int row,
                                               int part) {
  const int num_parts = p.sizes.moe_intermediate_size / 64;
  return p.workspace.v + ((int64_t{step} * p.workspace.max_rows + row) * num_parts + part) * 16;
}

// A list entry of 16-byte parts, past L1: an earlier kernel may have filled it while this one ran.
template <class T>
__device__ __forceinline__ T load_large_entry(const T* at) {
  static_assert(sizeof(T) % sizeof(int4) == 0);
  T entry;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / sizeof(int4)); ++i)
    reinterpret_cast<int4*>(&entry)[i] = __ldcg(reinterpret_cast<const int4*>(at) + i);
  return entry;
}

enum class LargeFactor { kExpandGateUp, kShrinkDown, kExpandDown };

template <LargeFactor kFactor>
__device__ __forceinline__ int large_rank(const MoeLargeRun& run) {
  return kFactor == LargeFactor::kExpandGateUp ? run.rank_gate_up : run.rank_down;
}
// Of a row tile of 128 rows of B, or of 64 columns of down's A.
template <LargeFactor kFactor>
__device__ __forceinline__ const uint8_t* large_factor(const MoeLargeRun& run, int row_tile) {
  const int rank = large_rank<kFactor>(run);
  if constexpr (kFactor == LargeFactor::kShrinkDown)
    return run.shrink_down + row_tile * down_shrink_tile_bytes(rank);
  return (kFactor == LargeFactor::kExpandGateUp ? run.expand_gate_up : run.expand_down) +
         row_tile * expand_tile_bytes(rank);
}

}  // namespace braid::kernels

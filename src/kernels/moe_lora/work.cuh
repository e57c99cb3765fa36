#pragma once

// What the LoRA kernels share: their list of work and the places of u and v.

#include <cstdint>

#include "kernels/common/mma.cuh"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "kernels/moe_lora/moe_lora.h"

namespace braid::kernels {

// Tokens that a CTA has in its registers at a time: two tiles of 8.
inline constexpr int kPieceTokens = 16;
inline constexpr int kColumnTiles = kPieceTokens / 8;

// An entry of a list, past L1: an earlier kernel may have written it while this one ran. All of
// these kernels may read the lists before they wait: the first kernel behind moe_routing lets its
// successor start only when routing is complete.
template <class T>
__device__ __forceinline__ T load_listed(const T* at) {
  static_assert(sizeof(T) == sizeof(int4));
  const int4 entry = __ldcg(reinterpret_cast<const int4*>(at));
  return reinterpret_cast<const T&>(entry);
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

}  // namespace braid::kernels

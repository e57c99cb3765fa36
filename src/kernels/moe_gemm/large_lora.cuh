#pragma once

// What the shrinks and the GEMMs of large batches share: the places of u and v, runs, fragments.

#include <cstdint>

#include "kernels/moe_gemm/large_batch.h"
#include "kernels/moe_gemm/layout.h"

namespace braid::kernels {

// u of a row, and behind it v, for one step of 16 ranks: in MoeWorkspace::u, which is larger.
inline constexpr int kLargeRecordElements = 64;
static_assert(kLargeURowElements + kLargeVRowElements <= kLargeRecordElements);
static_assert(kLargeRecordElements * 2 <= kURowFloats * 4);

__device__ __forceinline__ Bf16* large_u_of(const MoeLayerParams& p, int step, int row) {
  return reinterpret_cast<Bf16*>(p.workspace.u) +
         (int64_t{step} * p.workspace.num_u_rows + row) * kLargeRecordElements;
}
__device__ __forceinline__ Bf16* large_v_of(const MoeLayerParams& p, int step, int row) {
  return large_u_of(p, step, row) + kLargeURowElements;
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

// One lane's part of a packed 16 x 16 fragment in global memory; the half form has 8 rows
// (kHalfOf = 1) or 8 columns (kHalfOf = 2) and half the bytes.
template <int kHalfOf>
__device__ __forceinline__ uint4 load_large_factor(const uint8_t* fragment, bool whole, int lane) {
  if (whole) return __ldg(reinterpret_cast<const uint4*>(fragment) + lane);
  const uint2 half = __ldg(reinterpret_cast<const uint2*>(fragment) + lane);
  if constexpr (kHalfOf == 1) return make_uint4(half.x, 0, half.y, 0);
  return make_uint4(half.x, half.y, 0, 0);
}

}  // namespace braid::kernels

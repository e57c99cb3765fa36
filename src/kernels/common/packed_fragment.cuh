#pragma once

#include <cstdint>

namespace braid::kernels {

// One lane's part of a packed 16 x 16 fragment in shared memory; the half form has 8 rows
// (kHalfOf = 1) or 8 columns (kHalfOf = 2) and half the bytes. As mma's B operand, its lower 8 rows
// are {x, z}, the upper ones {y, w}.
template <int kHalfOf>
__device__ __forceinline__ uint4 load_fragment(const uint8_t* fragment, bool whole, int lane) {
  if (whole) return *(reinterpret_cast<const uint4*>(fragment) + lane);
  const uint2 half = *(reinterpret_cast<const uint2*>(fragment) + lane);
  if constexpr (kHalfOf == 1) return make_uint4(half.x, 0, half.y, 0);
  return make_uint4(half.x, half.y, 0, 0);
}

}  // namespace braid::kernels

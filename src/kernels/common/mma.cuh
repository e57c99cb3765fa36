#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// Warp-wide matrix instructions on BF16. PTX ISA 8.x, "mma.m16n8k16", "ldmatrix", "stmatrix".
//
// With row = lane / 4 and col = 2 * (lane % 4):
//   A [16, 16]  a[0] (row, col..), a[1] (row + 8, col..), a[2] (row, col + 8..), a[3] (row + 8, ..)
//   B [16, 8]   b0 (k = col.., n = row), b1 (k = col + 8.., n = row)
//   D [16, 8]   d[0], d[1] (row, col..), d[2], d[3] (row + 8, col..)
// D lies as every 8 columns of a wgmma accumulator do, so that mma adds into it in place.

// d += a b.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint4& a, uint32_t b0,
                                             uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// Two 8x8 matrices of 16-bit elements; lane i < 16 gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ uint2 ldmatrix_x2(uint32_t address) {
  uint2 m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(m.x), "=r"(m.y)
               : "r"(address));
  return m;
}

// Stores four 8x8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void stmatrix_x4(uint32_t address, uint32_t m0, uint32_t m1, uint32_t m2,
                                            uint32_t m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(m0), "r"(m1), "r"(m2), "r"(m3)
               : "memory");
}

// Stores 8x8 matrices transposed: a column of the fragment becomes a row of 16 bytes in memory.
// Lane i gives the address of memory row i % 8 of matrix i / 8.
__device__ __forceinline__ void stmatrix_x2_trans(uint32_t address, uint32_t m0, uint32_t m1) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address),
               "r"(m0), "r"(m1)
               : "memory");
}
__device__ __forceinline__ void stmatrix_x4_trans(uint32_t address, uint32_t m0, uint32_t m1,
                                                  uint32_t m2, uint32_t m3) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(m0), "r"(m1), "r"(m2), "r"(m3)
      : "memory");
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

}  // namespace braid::kernels

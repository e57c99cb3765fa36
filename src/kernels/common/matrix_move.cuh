#pragma once

#include <cstdint>

namespace braid::kernels {

// Matrices of 16-bit elements between shared memory and fragments. PTX ISA 8.x, "ldmatrix",
// "movmatrix".

// Four 8x8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ uint4 ldmatrix_x4(uint32_t address) {
  uint4 m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w)
               : "r"(address)
               : "memory");
  return m;
}

// The same, each transposed: a row in memory becomes a column of the fragment.
__device__ __forceinline__ uint4 ldmatrix_x4_trans(uint32_t address) {
  uint4 m;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w)
               : "r"(address)
               : "memory");
  return m;
}

// Transposes an 8x8 matrix that lies across the warp: lane i holds elements 2 * (i % 4) and the
// next of row i / 4.
__device__ __forceinline__ uint32_t transpose_8x8(uint32_t m) {
  uint32_t t;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(m));
  return t;
}

}  // namespace braid::kernels

#pragma once

// From packed NVFP4 to the fragments that wgmma reads from registers.

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/moe_gemm/nvfp4_layout.h"

namespace braid::kernels {

__device__ __forceinline__ uint32_t rotate_left(uint32_t x, int32_t bits) {
  return __funnelshift_l(x, x, bits);
}
__device__ __forceinline__ uint32_t multiply_bf16x2(uint32_t a, uint32_t b) {
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                         *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&product);
}

// The registers of two words: pairs of weights times 2^-126.
__device__ __forceinline__ void decode_nvfp4_words(uint32_t first, uint32_t second,
                                                   uint32_t (&registers)[8]) {
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    registers[i] = rotate_left(first, nvfp4_rotation(i)) & kNvfp4CodeMask;
    registers[3 + i] = rotate_left(second, nvfp4_rotation(i)) & kNvfp4CodeMask;
  }
  // The mask chooses between the two; so written it is one operation.
  const uint32_t others = rotate_left(second, kNvfp4LeftRotation);
  const uint32_t left = others ^ ((others ^ first) & kNvfp4LeftMask);
#pragma unroll
  for (int i = 0; i < 2; ++i)
    registers[6 + i] = rotate_left(left, nvfp4_left_rotation(i)) & kNvfp4CodeMask;
}

// A lane's scales of 64 rows, times 2^110: of the upper and the lower 8 rows of its warp's 16.
struct Nvfp4Scales {
  uint32_t upper, lower;

  __device__ __forceinline__ explicit Nvfp4Scales(uint32_t packed) {
    constexpr uint32_t kUnits = 0x79007900;  // kNvfp4ScaleUnit twice
    upper = packed & kNvfp4ScaleMask;
    lower = rotate_left(packed, kNvfp4ScaleRotation) & kNvfp4ScaleMask;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      upper = multiply_bf16x2(upper, kUnits), lower = multiply_bf16x2(lower, kUnits);
  }
};

// A lane's fragments of 64 rows by 64 columns, over kNvfp4Unit; `codes` are its 16 bytes of them.
__device__ __forceinline__ void decode_nvfp4_quarter(const uint8_t* codes,
                                                     const Nvfp4Scales& scales,
                                                     uint32_t (&fragments)[4][4]) {
  const uint4 words = *reinterpret_cast<const uint4*>(codes);
  uint32_t upper[8], lower[8];
  decode_nvfp4_words(words.x, words.y, upper);
  decode_nvfp4_words(words.z, words.w, lower);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    fragments[i / 2][i % 2 * 2] = multiply_bf16x2(upper[i], scales.upper);
    fragments[i / 2][i % 2 * 2 + 1] = multiply_bf16x2(lower[i], scales.lower);
  }
}

}  // namespace braid::kernels

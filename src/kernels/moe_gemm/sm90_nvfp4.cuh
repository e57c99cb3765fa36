#pragma once

// From packed NVFP4 to fragments of mma.

#include <cuda_bf16.h>

#include <bit>
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

// bits of a where the mask has ones, of b elsewhere. The compiler makes two operations of it.
template <uint32_t kMask>
__device__ __forceinline__ uint32_t choose_bits(uint32_t a, uint32_t b) {
  uint32_t chosen;
  asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(chosen) : "n"(kMask), "r"(a), "r"(b));
  return chosen;
}

// The registers of two words: pairs of weights times 2^-126. Where a rotation brings nothing round
// that the mask leaves, it is a shift, which other units than those of logic can do.
__device__ __forceinline__ void decode_nvfp4_words(uint32_t first, uint32_t second,
                                                   uint32_t (&registers)[8]) {
  constexpr int kShift = nvfp4_rotation(1), kRotation = nvfp4_rotation(2);
  const uint32_t left = choose_bits<kNvfp4LeftMask>(first, rotate_left(second, kNvfp4LeftRotation));
  registers[0] = first & kNvfp4CodeMask;
  registers[1] = first << kShift & kNvfp4CodeMask;
  registers[2] = rotate_left(first, kRotation) & kNvfp4CodeMask;
  registers[3] = second & kNvfp4CodeMask;
  registers[4] = second << kShift & kNvfp4CodeMask;
  registers[5] = rotate_left(second, kRotation) & kNvfp4CodeMask;
  registers[6] = left << nvfp4_left_rotation(0) & kNvfp4CodeMask;
  registers[7] = rotate_left(left, nvfp4_left_rotation(1)) & kNvfp4CodeMask;
}

// A lane's scales, times 2^110, of the upper and the lower 8 of its warp's 16 rows.
struct Nvfp4Scales {
  uint32_t upper, lower;

  __device__ __forceinline__ explicit Nvfp4Scales(uint32_t packed) {
    constexpr uint32_t kUnits = (std::bit_cast<uint32_t>(kNvfp4ScaleUnit) >> 16) * 0x10001;
    upper = packed & kNvfp4ScaleMask;
    lower = rotate_left(packed, kNvfp4ScaleRotation) & kNvfp4ScaleMask;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      upper = multiply_bf16x2(upper, kUnits), lower = multiply_bf16x2(lower, kUnits);
  }
};

// A lane's fragments of its warp's 16 rows by 64 columns, over kNvfp4Unit; `codes` are its 16
// bytes.
__device__ __forceinline__ void decode_nvfp4_quarter(const uint8_t* codes,
                                                     const Nvfp4Scales& scales,
                                                     uint4 (&fragments)[4]) {
  const uint4 words = *reinterpret_cast<const uint4*>(codes);
  uint32_t upper[8], lower[8];
  decode_nvfp4_words(words.x, words.y, upper);
  decode_nvfp4_words(words.z, words.w, lower);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    fragments[i] = make_uint4(multiply_bf16x2(upper[2 * i], scales.upper),
                              multiply_bf16x2(lower[2 * i], scales.lower),
                              multiply_bf16x2(upper[2 * i + 1], scales.upper),
                              multiply_bf16x2(lower[2 * i + 1], scales.lower));
  }
}

}  // namespace braid::kernels

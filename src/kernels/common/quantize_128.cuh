#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/common/tiles.h"

namespace braid::kernels {

struct Quantized128 {
  __nv_fp8x4_e4m3 codes;  // of this lane's four elements
  float scale;
};

// 128 BF16 elements of a token by one warp, four a lane.
__device__ __forceinline__ Quantized128 quantize_128(uint2 four) {
  const float2 low = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.x));
  const float2 high = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.y));
  const float my_amax =
      fmaxf(fmaxf(fabsf(low.x), fabsf(low.y)), fmaxf(fabsf(high.x), fabsf(high.y)));
  const float amax = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(my_amax)));
  const float scale = e4m3_scale(amax), inverse = 1.0f / scale;
  return {.codes = __nv_fp8x4_e4m3(
              make_float4(low.x * inverse, low.y * inverse, high.x * inverse, high.y * inverse)),
          .scale = scale};
}

struct Quantized16 {
  uint4 codes;  // of this lane's 16 elements
  float scale;
};

// The same by eight neighbouring lanes, 16 elements a lane.
__device__ __forceinline__ Quantized16 quantize_128(const uint4 (&sixteen)[2]) {
  const auto* const two = reinterpret_cast<const __nv_bfloat162*>(sixteen);
  __nv_bfloat162 most = __habs2(two[0]);
#pragma unroll
  for (int i = 1; i < 8; ++i) most = __hmax2(most, __habs2(two[i]));
  float amax = fmaxf(__low2float(most), __high2float(most));
#pragma unroll
  for (int step = 4; step > 0; step /= 2)
    amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
  const float scale = e4m3_scale(amax), inverse = 1.0f / scale;
  uint32_t codes[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 low = __bfloat1622float2(two[2 * i]), high = __bfloat1622float2(two[2 * i + 1]);
    const __nv_fp8x4_e4m3 four(
        make_float4(low.x * inverse, low.y * inverse, high.x * inverse, high.y * inverse));
    codes[i] = *reinterpret_cast<const uint32_t*>(&four);
  }
  return {.codes = make_uint4(codes[0], codes[1], codes[2], codes[3]), .scale = scale};
}

}  // namespace braid::kernels

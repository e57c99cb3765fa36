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

}  // namespace braid::kernels

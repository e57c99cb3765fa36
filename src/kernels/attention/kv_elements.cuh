#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/attention/paged_kv.h"
#include "kernels/common/mma.cuh"

namespace braid::kernels {

// Elements of the KV cache as BF16 pairs for the tensor cores. Both directions of e4m3 to BF16 are
// exact but for the rounding of a store.

__device__ __forceinline__ uint32_t bf16x2_from_e4m3x2(uint32_t two) {
  const __half2_raw half =
      __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(two), __NV_E4M3);
  const float2 f = __half22float2(__half2(half));
  return pack_bf16(f.x, f.y);
}

template <KvFormat kFormat>
struct KvElements;

template <>
struct KvElements<KvFormat::kBf16> {
  static constexpr int kBytes = 2;
  // Elements [i, i + 8) and [i, i + 4) from shared memory.
  static __device__ __forceinline__ uint4 load_8(const uint8_t* from, int i) {
    return *reinterpret_cast<const uint4*>(from + 2 * i);
  }
  static __device__ __forceinline__ uint2 load_4(const uint8_t* from, int i) {
    return *reinterpret_cast<const uint2*>(from + 2 * i);
  }
  // Eight numbers into the cache.
  static __device__ __forceinline__ void store_8(void* to, int64_t i, const float (&x)[8], float) {
    *reinterpret_cast<uint4*>(static_cast<uint8_t*>(to) + 2 * i) = make_uint4(
        pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
  }
};

template <>
struct KvElements<KvFormat::kE4m3> {
  static constexpr int kBytes = 1;
  static __device__ __forceinline__ uint2 convert_4(uint32_t four) {
    return make_uint2(bf16x2_from_e4m3x2(four & 0xffffu), bf16x2_from_e4m3x2(four >> 16));
  }
  static __device__ __forceinline__ uint4 convert_8(uint2 eight) {
    const uint2 low = convert_4(eight.x), high = convert_4(eight.y);
    return make_uint4(low.x, low.y, high.x, high.y);
  }
  static __device__ __forceinline__ uint4 load_8(const uint8_t* from, int i) {
    return convert_8(*reinterpret_cast<const uint2*>(from + i));
  }
  static __device__ __forceinline__ uint2 load_4(const uint8_t* from, int i) {
    return convert_4(*reinterpret_cast<const uint32_t*>(from + i));
  }
  // Saturates at 448 * scale; NaN stays NaN.
  static __device__ __forceinline__ void store_8(void* to, int64_t i, const float (&x)[8],
                                                 float inverse_scale) {
    uint32_t codes[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      codes[e] = __nv_cvt_float2_to_fp8x2(
          make_float2(x[2 * e] * inverse_scale, x[2 * e + 1] * inverse_scale), __NV_SATFINITE,
          __NV_E4M3);
    }
    *reinterpret_cast<uint2*>(static_cast<uint8_t*>(to) + i) =
        make_uint2(codes[0] | codes[1] << 16, codes[2] | codes[3] << 16);
  }
};

// 2^x; -inf gives 0.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float2 bf16_pair(uint32_t two) {
  return make_float2(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u));
}

}  // namespace braid::kernels

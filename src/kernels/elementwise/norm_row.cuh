#pragma once

// RMSNorm of one token by one CTA. A thread has kChunks times 4 elements, a warp 128 neighbouring
// ones at a time. Code that runs once a layer comes from far away: it is short before it is clever.

#include <cstdint>

#include "base/bf16.h"
#include "kernels/common/mma.cuh"

namespace braid::kernels {

// Four BF16 as floats.
__device__ __forceinline__ float4 floats_of(const uint2& four) {
  return make_float4(__uint_as_float(four.x << 16), __uint_as_float(four.x & 0xffff0000u),
                     __uint_as_float(four.y << 16), __uint_as_float(four.y & 0xffff0000u));
}
__device__ __forceinline__ uint2 bf16_of(const float4& four) {
  return make_uint2(pack_bf16(four.x, four.y), pack_bf16(four.z, four.w));
}

// A token's row by fours of elements.
__device__ __forceinline__ uint2* fours_of_row(Bf16* rows, int64_t row, int64_t stride) {
  return reinterpret_cast<uint2*>(rows + row * stride);
}
__device__ __forceinline__ const uint2* fours_of_row(const Bf16* rows, int64_t row,
                                                     int64_t stride) {
  return reinterpret_cast<const uint2*>(rows + row * stride);
}

// Threads of a CTA for rows of `hidden` elements, and fours a thread.
inline constexpr int kMaxNormThreads = 512;
struct NormShape {
  int threads;
  int chunks;  // a power of two
};
constexpr NormShape norm_shape(int hidden) {
  const int fours = hidden / 4;
  int chunks = 1;
  while (fours > kMaxNormThreads * chunks) chunks *= 2;
  return {.threads = ((fours + chunks - 1) / chunks + 31) / 32 * 32, .chunks = chunks};
}

template <int kChunks>
struct NormRow {
  uint2 weight[kChunks];
  float4 x[kChunks];  // what is normed, as it is stored

  // `fours` are the row's.
  static __device__ __forceinline__ bool has(int c, int fours) {
    return static_cast<int>(threadIdx.x + c * blockDim.x) < fours;
  }
  static __device__ __forceinline__ int at(int c) {
    return static_cast<int>(threadIdx.x + c * blockDim.x);
  }

  // Before the previous kernel has finished.
  __device__ __forceinline__ void load_weight(const Bf16* from, int fours) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (has(c, fours)) weight[c] = __ldg(fours_of_row(from, 0, 0) + at(c));
    }
  }

  // x = bf16(residual + delta), stored.
  __device__ __forceinline__ void add(uint2* residual, int c, const uint2& delta) {
    const float4 old = floats_of(__ldcg(residual + at(c))), d = floats_of(delta);
    const uint2 stored = bf16_of(make_float4(old.x + d.x, old.y + d.y, old.z + d.z, old.w + d.w));
    residual[at(c)] = stored;
    x[c] = floats_of(stored);
  }

  // y = x * rsqrt(mean(x^2) + eps) * weight, by all threads of the CTA.
  __device__ __forceinline__ void store(uint2* y, int fours, float eps, int mean_size) {
    float squares = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (!has(c, fours)) continue;
      squares = fmaf(x[c].x, x[c].x, squares), squares = fmaf(x[c].y, x[c].y, squares);
      squares = fmaf(x[c].z, x[c].z, squares), squares = fmaf(x[c].w, x[c].w, squares);
    }
    // In a fixed order: over the warp, then over the warps.
    __shared__ float of_warp[kMaxNormThreads / 32];
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) squares += __shfl_xor_sync(~0u, squares, step);
    if (lane == 0) of_warp[threadIdx.x / 32] = squares;
    __syncthreads();
    float total = lane < static_cast<int>(blockDim.x / 32) ? of_warp[lane] : 0.0f;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) total += __shfl_xor_sync(~0u, total, step);
    const float scale = rsqrtf(total / static_cast<float>(mean_size) + eps);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (!has(c, fours)) continue;
      const float4 w = floats_of(weight[c]);
      y[at(c)] = bf16_of(make_float4(x[c].x * (scale * w.x), x[c].y * (scale * w.y),
                                     x[c].z * (scale * w.z), x[c].w * (scale * w.w)));
    }
  }
};

}  // namespace braid::kernels

#include <cuda_bf16.h>

#include "kernels/common/launch.h"
#include "kernels/moe_gemm/dummy.h"
#include "kernels/moe_gemm/layout.h"

namespace braid::kernels {
namespace {

constexpr int kThreads = 256, kCtas = 4096;

// SplitMix64.
__device__ uint64_t random_bits(uint64_t seed, uint64_t i) {
  uint64_t z = seed * 0xd1342543de82ef95u + i * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

__global__ void fill_moe_weights_kernel(uint8_t* tiles, int64_t bytes, int depth, float w_scale,
                                        uint64_t seed) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (int64_t i = 8 * thread; i < bytes; i += 8 * int64_t{kCtas} * kThreads) {
    // Sign, and exponents up to the one of 1.
    uint64_t codes = random_bits(seed, i) & 0xbfbfbfbfbfbfbfbfu;
    if (i % weight_rows_bytes(depth) >= depth * kWeightTileBytes) {
      const float scales[2] = {w_scale, w_scale};
      codes = *reinterpret_cast<const uint64_t*>(scales);
    }
    *reinterpret_cast<uint64_t*>(tiles + i) = codes;
  }
}

__global__ void fill_bf16_kernel(__nv_bfloat16* values, int64_t count, float size, uint64_t seed) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (int64_t i = thread; i < count; i += int64_t{kCtas} * kThreads) {
    const auto bits = static_cast<int32_t>(random_bits(seed, i) >> 32);
    values[i] = __float2bfloat16(static_cast<float>(bits) * 0x1p-31f * size);
  }
}

}  // namespace

void fill_moe_weights(uint8_t* tiles, int64_t bytes, int32_t depth, uint64_t seed,
                      CudaStream stream) {
  const float w_scale = 2.0f * rsqrtf(128.0f * static_cast<float>(depth));
  launch("fill_moe_weights", fill_moe_weights_kernel,
         {.grid = dim3(kCtas), .cta = dim3(kThreads), .overlap_previous = false}, stream, tiles,
         bytes, depth, w_scale, seed);
}

void fill_bf16(Bf16* values, int64_t count, float size, uint64_t seed, CudaStream stream) {
  launch("fill_bf16", fill_bf16_kernel,
         {.grid = dim3(kCtas), .cta = dim3(kThreads), .overlap_previous = false}, stream,
         reinterpret_cast<__nv_bfloat16*>(values), count, size, seed);
}

}  // namespace braid::kernels

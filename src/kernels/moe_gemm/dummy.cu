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

// What 8 bytes of 128 packed rows are.
struct PackedRows {
  int32_t bytes;        // of the rows
  int32_t scales_at;    // behind the weights, pairs of w_scale
  int32_t block_bytes;  // of weights: codes, then scales of their own
  int32_t code_bytes;   // in a block
  uint64_t code_bits;   // that may be set in codes
  uint64_t scale_bits;  // and in scales
  float w_scale;
};

__global__ void fill_moe_weights_kernel(uint8_t* rows, int64_t bytes, PackedRows packed,
                                        uint64_t seed) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (int64_t i = 8 * thread; i < bytes; i += 8 * int64_t{kCtas} * kThreads) {
    const auto at = static_cast<int32_t>(i % packed.bytes);
    const bool is_code = at % packed.block_bytes < packed.code_bytes;
    uint64_t bits = random_bits(seed, i) & (is_code ? packed.code_bits : packed.scale_bits);
    if (at >= packed.scales_at) {
      const float scales[2] = {packed.w_scale, packed.w_scale};
      bits = *reinterpret_cast<const uint64_t*>(scales);
    }
    *reinterpret_cast<uint64_t*>(rows + i) = bits;
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

void fill_moe_weights(WeightFormat format, uint8_t* rows, int64_t bytes, int32_t columns,
                      uint64_t seed, CudaStream stream) {
  const float unit = rsqrtf(static_cast<float>(columns));
  if (format == WeightFormat::kBf16)
    return fill_bf16(reinterpret_cast<Bf16*>(rows), bytes / 2, 2.2f * unit, seed, stream);
  PackedRows packed = {.bytes = weight_rows_bytes(format, columns),
                       .scales_at = weight_columns_bytes(format, columns)};
  if (format == WeightFormat::kNvfp4) {
    packed.block_bytes = kNvfp4BlockBytes, packed.code_bytes = kNvfp4CodeBytes;
    packed.code_bits = ~uint64_t{0};
    // Without the upper bit of the exponents, where they stand (nvfp4_layout.h).
    packed.scale_bits = ~uint64_t{0x0404040404040404};
    packed.w_scale = 0.7f * unit * kNvfp4Unit;
  } else {
    packed.block_bytes = packed.code_bytes = kWeightTileBytes;
    packed.code_bits = 0xbfbfbfbfbfbfbfbf;  // without the upper bit of the exponents
    packed.w_scale = 2.0f * unit;
  }
  launch("fill_moe_weights", fill_moe_weights_kernel,
         {.grid = dim3(kCtas), .cta = dim3(kThreads), .overlap_previous = false}, stream, rows,
         bytes, packed, seed);
}

void fill_bf16(Bf16* values, int64_t count, float size, uint64_t seed, CudaStream stream) {
  launch("fill_bf16", fill_bf16_kernel,
         {.grid = dim3(kCtas), .cta = dim3(kThreads), .overlap_previous = false}, stream,
         reinterpret_cast<__nv_bfloat16*>(values), count, size, seed);
}

}  // namespace braid::kernels

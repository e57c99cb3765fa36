#pragma once

#include <cstdint>

#include "base/bf16.h"
#include "base/cuda_fwd.h"
#include "quant/weight_matrix.h"

namespace braid::kernels {

// Random contents made on the device, for measurements: zeros run faster than real data.

// Packed weights of matrices of so many columns (fp8_block128, bf16 or nvfp4), which keep
// activations of size 1 near 1. Codes and scales in e4m3 are all of those up to 1.875.
void fill_moe_weights(WeightFormat format, uint8_t* rows, int64_t bytes, int32_t columns,
                      uint64_t seed, CudaStream stream);

// BF16 numbers, uniform in [-size, size].
void fill_bf16(Bf16* values, int64_t count, float size, uint64_t seed, CudaStream stream);

}  // namespace braid::kernels

#pragma once

#include <cstdint>

#include "base/bf16.h"
#include "base/cuda_fwd.h"

namespace braid::kernels {

// Random contents made on the device, for measurements: zeros run faster than real data.

// Packed weights of matrices of 128 * depth columns: every e4m3 code but NaN up to 1.875, and
// scales that keep activations of size 1 near 1.
void fill_moe_weights(uint8_t* tiles, int64_t bytes, int32_t depth, uint64_t seed,
                      CudaStream stream);

// BF16 numbers, uniform in [-size, size].
void fill_bf16(Bf16* values, int64_t count, float size, uint64_t seed, CudaStream stream);

}  // namespace braid::kernels

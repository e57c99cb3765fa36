#pragma once

#include <cuda.h>

#include <cstdint>

namespace braid::kernels {

// The map by which the copy engine finds boxes of a matrix of BF16 [rows, columns], contiguous, in
// global memory at `base` (aligned to 16 bytes). A box has box_rows rows of 64 columns and lands in
// shared memory as tiles.h swizzles it; columns past the last become zero. The number of rows is
// not known to it: who names a row that is not there reads what lies there.
//
// Throws CudaError if the driver refuses it, or has no such call. Nothing here links to the driver.
CUtensorMap bf16_tensor_map(const void* base, int32_t columns, int32_t box_rows);

}  // namespace braid::kernels

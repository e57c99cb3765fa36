#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// Copies of boxes of a matrix in global memory by the copy engine. PTX ISA 8.x,
// "cp.async.bulk.tensor".

// Brings the map itself near. One thread.
__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// The box that begins at (row, column), to shared memory; `barrier` counts its bytes when they have
// landed. One thread issues. `map` is a __grid_constant__ parameter.
__device__ __forceinline__ void tensor_copy(void* shared, const CUtensorMap& map, int32_t column,
                                            int32_t row, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3}], [%4];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

}  // namespace braid::kernels

#pragma once

#include <cstdint>

#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// CTAs of a cluster and their shared memory. PTX ISA 8.x, "barrier.cluster", "mapa", "st.async".

// Returns when all threads of the cluster that have not ended have come. It orders nothing but
// barriers that were made before (mbarrier_init_fence): ordering all of memory would wait for
// stores to reach L2.
__device__ __forceinline__ void cluster_barrier_relaxed() {
  asm volatile(
      "barrier.cluster.arrive.relaxed.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// Stores four floats at this place of the shared memory of the cluster's CTA `rank`, and counts
// 16 bytes at this barrier there when they have landed.
__device__ __forceinline__ void store_to_cta(float4* shared, float4 v, uint64_t* barrier,
                                             uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 to, bar;\n"
      "mapa.shared::cluster.u32 to, %0, %6;\n"
      "mapa.shared::cluster.u32 bar, %1, %6;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [to], {%2, %3, %4, %5}, "
      "[bar];\n"
      "}" ::"r"(shared_address(shared)),
      "r"(shared_address(barrier)), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(rank)
      : "memory");
}

}  // namespace braid::kernels

#pragma once

#include <cstdint>

#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// Barriers in shared memory (mbarrier.cuh) on which CTAs of a cluster wait for each other, and what
// they read then. PTX ISA 8.x, "mbarrier.arrive", "mbarrier.try_wait", "mapa".

// Where a variable of this CTA's shared memory lies in that of the cluster's CTA `rank`, which must
// have started and not yet left.
template <class T>
__device__ __forceinline__ T* in_cta(T* shared, int rank) {
  uint64_t address;
  asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(shared), "r"(rank));
  return reinterpret_cast<T*>(address);
}

// Arrives at this barrier in the cluster's CTA `rank`; who waits there sees what this thread has
// seen and written.
__device__ __forceinline__ void mbarrier_arrive_cluster(uint64_t* barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 bar;\n"
      "mapa.shared::cluster.u32 bar, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [bar];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}

// Returns when the phase of this parity has completed.
__device__ __forceinline__ void mbarrier_wait_cluster(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

}  // namespace braid::kernels

#pragma once

#include <cstdint>

#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// Copies to the shared memories of several CTAs of a cluster, and arrivals that say no more than
// that a place may be written again. PTX ISA 8.x, "mapa", "mbarrier.arrive", "cp.async.bulk" with
// .multicast::cluster.

__device__ __forceinline__ int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

// Arrives at this barrier of the cluster's CTA `rank`. What the CTA has written is not ordered for
// the other: with .release.cluster every arrival would wait for all of memory, which doubled the
// time of a GEMM.
__device__ __forceinline__ void arrive_in_cta(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}
__device__ __forceinline__ void arrive_expect_in_cta(uint64_t* barrier, uint32_t rank,
                                                     uint32_t bytes) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.expect_tx.shared::cluster.b64 _, [remote], %2;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank), "r"(bytes)
      : "memory");
}

// Global memory to this place of shared memory, given as PTX does.
__device__ __forceinline__ void bulk_copy_to_shared(uint32_t shared, const void* global,
                                                    uint32_t bytes, uint64_t* barrier,
                                                    CachePolicy policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(static_cast<uint64_t>(policy))
      : "memory");
}
// Global memory to this place of the shared memory of every CTA in `mask`, and the bytes to this
// barrier there.
__device__ __forceinline__ void bulk_copy_to_ctas(uint32_t shared, const void* global,
                                                  uint32_t bytes, uint64_t* barrier, uint16_t mask,
                                                  CachePolicy policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::"
      "cache_hint [%0], [%1], %2, [%3], %4, %5;" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "h"(mask),
      "l"(static_cast<uint64_t>(policy))
      : "memory");
}

}  // namespace braid::kernels

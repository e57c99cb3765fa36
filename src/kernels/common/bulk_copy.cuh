#pragma once

#include <cstdint>

#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// Contiguous copies by the copy engine. PTX ISA 8.x, "cp.async.bulk". Addresses and sizes are
// multiples of 16 bytes.

enum class CachePolicy : uint64_t {
  kEvictFirst = 0x12F0000000000000,  // read once: weights and factors
  kEvictLast = 0x14F0000000000000,   // read by many CTAs soon: activations
};

// Global to shared memory; `barrier` counts the bytes when they have landed. One thread issues.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, uint32_t bytes,
                                          uint64_t* barrier, CachePolicy policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(static_cast<uint64_t>(policy))
      : "memory");
}

// Brings global memory into L2; nothing waits for it.
__device__ __forceinline__ void bulk_prefetch_l2(const void* global, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
}

// Order this thread's earlier accesses to global or to the CTA's shared memory before later ones
// through the asynchronous proxy: bulk copies, wgmma. That goes for reads as well: an arrival at a
// barrier does not wait for loads from shared memory that are under way, so that a copy started
// behind it may land before they have read. Without a state space the fence waits for all that is
// under way to memory, half a microsecond and more. PTX ISA 8.x, "Proxies".
__device__ __forceinline__ void fence_proxy_async_global() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}
__device__ __forceinline__ void fence_proxy_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

}  // namespace braid::kernels

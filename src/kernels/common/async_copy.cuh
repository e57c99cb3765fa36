#pragma once

#include <cstdint>

#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// Copies from global to shared memory that a thread issues and does not wait for. PTX
// ISA 8.x, "cp.async". Both addresses are multiples of what is copied.

// 16 bytes. Where `there` is false nothing is read and they become zero.
__device__ __forceinline__ void async_copy_16(uint32_t shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(there ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void async_copy_16(uint32_t shared, const void* global, bool there,
                                              CachePolicy policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(shared),
               "l"(global), "r"(there ? 16 : 0), "l"(static_cast<uint64_t>(policy))
               : "memory");
}

// Brings a line of global memory into L2; nothing waits for it.
__device__ __forceinline__ void prefetch_l2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global) : "memory");
}

// 4 bytes, through L1.
__device__ __forceinline__ void async_copy_4(uint32_t shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(global) : "memory");
}

// Ends a group of this thread's copies.
__device__ __forceinline__ void async_copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most kGroups of this thread's latest groups are unfinished. Other threads see the
// bytes after a barrier.
template <int kGroups>
__device__ __forceinline__ void async_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// Arrives at the barrier once all copies this thread has issued so far have landed; the barrier
// counts it among its arrivals.
__device__ __forceinline__ void async_copy_arrive(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// The same, besides the arrivals that the barrier counts. One of these has to be yet to come.
__device__ __forceinline__ void async_copy_arrive_besides(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

}  // namespace braid::kernels

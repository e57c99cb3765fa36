#pragma once

#include <cstdint>

#include "kernels/common/shared_address.cuh"

namespace braid::kernels {

// Copies of 16 bytes from global to shared memory that a thread issues and does not wait for. PTX
// ISA 8.x, "cp.async". Both addresses are multiples of 16 bytes.

// Where `there` is false nothing is read and the 16 bytes become zero.
__device__ __forceinline__ void async_copy_16(uint32_t shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(there ? 16 : 0)
               : "memory");
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

}  // namespace braid::kernels

#pragma once

namespace braid::kernels {

// Barriers 1 to 15 of a CTA, each for as many threads as both sides name, a multiple of 32. Barrier
// 0 is __syncthreads(). PTX ISA 8.x, "bar".

// Waits until kThreads have come, and orders their memory accesses.
template <int kThreads>
__device__ __forceinline__ void barrier_wait(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}

// Counts among them without waiting.
template <int kThreads>
__device__ __forceinline__ void barrier_arrive(int barrier) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory");
}

}  // namespace braid::kernels

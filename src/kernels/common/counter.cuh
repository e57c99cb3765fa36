#pragma once

#include <cstdint>

namespace braid::kernels {

// Counters in global memory through which CTAs of one kernel hand over data. PTX ISA 8.x, "red",
// "ld".

// Adds to it. Whoever sees that with load_acquire() sees what this thread saw and wrote before.
__device__ __forceinline__ void count_release(int32_t* counter, int32_t by = 1) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(counter), "r"(by) : "memory");
}
// Adds one and returns what it was, in no order with other accesses. Nothing waits before the
// answer is used: additions the compiler would gather over the warp, and wait for at once.
__device__ __forceinline__ int32_t fetch_increment(int32_t* counter) {
  int32_t before;
  asm volatile("atom.relaxed.gpu.global.inc.u32 %0, [%1], 0x7fffffff;"
               : "=r"(before)
               : "l"(counter)
               : "memory");
  return before;
}
__device__ __forceinline__ int32_t load_acquire(const int32_t* counter) {
  int32_t value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

}  // namespace braid::kernels

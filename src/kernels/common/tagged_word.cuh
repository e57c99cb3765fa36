#pragma once

#include <cstdint>

namespace braid::kernels {

// 32 bits that one CTA hands to others through global memory, with the number of the launch that
// wrote them in one word of 64: whoever finds the number has the bits. No fence, no counter, and
// nothing to clear. PTX ISA 8.x, "Memory consistency model": accesses of 64 aligned bits are
// single.
__device__ __forceinline__ void store_tagged(uint64_t* word, uint32_t bits, uint32_t launch) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word),
               "l"(static_cast<uint64_t>(launch) << 32 | bits)
               : "memory");
}
// As it is now: bits below, the number above.
__device__ __forceinline__ uint64_t load_tagged(const uint64_t* word) {
  uint64_t value;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
}

}  // namespace braid::kernels

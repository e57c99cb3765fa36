#pragma once

#include <cstdint>

namespace braid::kernels {

// What PTX calls a shared::cta address: 32 bits, from the start of the CTA's shared memory.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace braid::kernels

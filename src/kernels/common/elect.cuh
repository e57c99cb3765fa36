#pragma once

#include <cstdint>

namespace braid::kernels {

// True in one lane of the warp, all of which call it. Unlike after a comparison of lanes, the
// compiler knows that there is one, and issues copies without a loop over lanes that differ.
__device__ __forceinline__ bool elect_one() {
  uint32_t elected = 0;
  asm volatile(
      "{\n"
      ".reg .pred one;\n"
      "elect.sync _|one, 0xffffffff;\n"
      "@one mov.u32 %0, 1;\n"
      "}"
      : "+r"(elected));
  return elected != 0;
}

}  // namespace braid::kernels

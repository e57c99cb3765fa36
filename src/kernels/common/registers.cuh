#pragma once

namespace braid::kernels {

// Registers of a thread, moved between warpgroups of a CTA; all warps of a warpgroup take part. A
// multiple of 8. PTX ISA 8.x, "setmaxnreg".

// Waits until others have given as many.
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace braid::kernels

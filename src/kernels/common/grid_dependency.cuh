#pragma once

namespace braid::kernels {

// Programmatic dependent launch. PTX ISA 8.x, "griddepcontrol".

// Returns when the kernels this one depends on have finished and their writes can be seen.
__device__ __forceinline__ void wait_for_previous_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Lets the next kernel of the stream start as soon as every CTA has called this and there is room.
__device__ __forceinline__ void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace braid::kernels

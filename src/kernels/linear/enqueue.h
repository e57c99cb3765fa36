#pragma once

#include "kernels/linear/linear_bf16.h"

namespace braid::kernels::internal {

// The launches behind linear_bf16.h, of parameters that have been checked.
void enqueue_linear_fp8(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream);
void enqueue_linear_bf16(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream);
// u of large batches, where shrinks_apart(): for the kernel of the plan.
void enqueue_linear_large_shrink(const LinearBf16Params& p, const LinearPlan& plan,
                                 CudaStream stream);
// y of large batches.
void enqueue_linear_large(const LinearBf16Params& p, CudaStream stream);
// x to its image; where shrinks_apart(), behind enqueue_linear_large_shrink() and beside it.
void enqueue_quantize_x(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream);

}  // namespace braid::kernels::internal

#pragma once

#include "kernels/linear/linear_bf16.h"

namespace braid::kernels::internal {

// The launches behind linear_bf16.h, of parameters that have been checked.
void enqueue_linear_fp8(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream);
void enqueue_linear_bf16(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream);
// x to its image.
void enqueue_quantize_x(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream);

}  // namespace braid::kernels::internal

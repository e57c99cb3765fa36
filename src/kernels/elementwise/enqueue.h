#pragma once

#include "kernels/elementwise/elementwise_bf16.h"

namespace braid::kernels::internal {

// The launches behind elementwise_bf16.h, of parameters that have been checked.
void enqueue_rms_norm(const RmsNormBf16Params& p, CudaStream stream);
void enqueue_embedding(const EmbeddingBf16Params& p, CudaStream stream);
void enqueue_silu_mul(const SiluMulBf16Params& p, CudaStream stream);

}  // namespace braid::kernels::internal

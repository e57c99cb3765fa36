#pragma once

#include <cstdint>

#include "cpu/thread_pool.h"
#include "kernels/elementwise/elementwise.h"

namespace braid::cpu {

void rms_norm(ThreadPool& pool, const kernels::RmsNormParams& p);
void embedding(ThreadPool& pool, const kernels::EmbeddingParams& p);
void silu_mul(ThreadPool& pool, const kernels::SiluMulParams& p);

// z = silu(gate) * up over n elements, on the caller's thread; the same bits wherever a row is cut.
void silu_mul_row(const float* gate, const float* up, float* z, int64_t n);

}  // namespace braid::cpu

#pragma once

#include <cstdint>

#include "base/rounding.h"
#include "cpu/thread_pool.h"
#include "kernels/elementwise/elementwise.h"

namespace braid::cpu {

void rms_norm(ThreadPool& pool, const kernels::RmsNormParams& p, Rounding rounding);
void embedding(ThreadPool& pool, const kernels::EmbeddingParams& p, Rounding rounding);
void silu_mul(ThreadPool& pool, const kernels::SiluMulParams& p, Rounding rounding);

// z = silu(gate) * up over n elements, on the caller's thread; the same bits wherever a row is cut.
void silu_mul_row(const float* gate, const float* up, float* z, int64_t n);

}  // namespace braid::cpu

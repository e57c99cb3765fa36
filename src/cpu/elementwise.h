#pragma once

#include "cpu/thread_pool.h"
#include "kernels/elementwise/elementwise.h"

namespace braid::cpu {

void rms_norm(ThreadPool& pool, const kernels::RmsNormParams& p);
void embedding(ThreadPool& pool, const kernels::EmbeddingParams& p);
void silu_mul(ThreadPool& pool, const kernels::SiluMulParams& p);

}  // namespace braid::cpu

#pragma once

#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"
#include "kernels/moe/router.h"

namespace braid::reference {

// Every kernel in plain double loops over the same parameter structs: the oracle of the fast ones.
// Results are rounded to float (or BF16, in the KV cache) once, when they are stored. Index arrays
// are checked: one out of range throws InternalError.

void linear(const kernels::LinearParams& p);
void moe(const kernels::MoeParams& p);
void router(const kernels::RouterParams& p);
void rope_kv_write(const kernels::RopeKvWriteParams& p);
void attention(const kernels::AttentionParams& p);
void rms_norm(const kernels::RmsNormParams& p);
void embedding(const kernels::EmbeddingParams& p);
void silu_mul(const kernels::SiluMulParams& p);

}  // namespace braid::reference

#pragma once

#include <span>

#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"
#include "kernels/moe/router.h"
#include "ops/context.h"

namespace braid::ops {

// Each op checks its parameters (InternalError naming the field when they are off), picks the
// implementation and runs it to completion. An empty problem (no tokens) does nothing.

// Several projections of one step in one parallel pass (q, k and v; gate and up): they must not
// depend on each other.
void linear(const Context& context, std::span<const kernels::LinearParams> problems);
void router(const Context& context, const kernels::RouterParams& p);
void moe(const Context& context, const kernels::MoeParams& p);
void rope_kv_write(const Context& context, const kernels::RopeKvWriteParams& p);
void attention(const Context& context, const kernels::AttentionParams& p);
void rms_norm(const Context& context, const kernels::RmsNormParams& p);
void embedding(const Context& context, const kernels::EmbeddingParams& p);
void silu_mul(const Context& context, const kernels::SiluMulParams& p);

}  // namespace braid::ops

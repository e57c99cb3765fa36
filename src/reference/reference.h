#pragma once

#include "base/rounding.h"
#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"
#include "kernels/moe/router.h"

namespace braid::reference {

// Every kernel in plain double loops over the same parameter structs: the oracle of the fast ones.
// Results are rounded to float once, when they are stored, or as `rounding` says. Index arrays are
// checked: one out of range throws InternalError.

void linear(const kernels::LinearParams& p, Rounding rounding = Rounding::kNone);
void moe(const kernels::MoeParams& p, Rounding rounding = Rounding::kNone);
void router(const kernels::RouterParams& p);
void rope_kv_write(const kernels::RopeKvWriteParams& p, Rounding rounding = Rounding::kNone);
void attention(const kernels::AttentionParams& p, Rounding rounding = Rounding::kNone);
void rms_norm(const kernels::RmsNormParams& p, Rounding rounding = Rounding::kNone);
void embedding(const kernels::EmbeddingParams& p, Rounding rounding = Rounding::kNone);
void silu_mul(const kernels::SiluMulParams& p, Rounding rounding = Rounding::kNone);

}  // namespace braid::reference

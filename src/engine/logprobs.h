#pragma once

#include <cstdint>
#include <span>

#include "braid/engine.h"

namespace braid {

// log p of `token` under softmax(logits), its rank, and the num_top most likely tokens (equal
// logits by rising id). One computation for all of them, so that the token's value equals its value
// among `top` bit for bit. Sums are in double in the order of ids. No NaN in logits.
TokenLogprob compute_logprob(std::span<const float> logits, int32_t token, int32_t num_top);

}  // namespace braid

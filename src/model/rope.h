#pragma once

#include <vector>

#include "checkpoint/model_config.h"

namespace braid {

// [head_dim / 2]: rope_theta^(-2i / head_dim), in double and rounded once; transformers' float
// arithmetic is an ulp off in places.
std::vector<float> rope_inv_freq(const ModelConfig& config);

}  // namespace braid

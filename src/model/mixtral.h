#pragma once

#include <memory>

#include "model/layer_weights.h"
#include "model/model.h"

namespace braid {

// MixtralForCausalLM: grouped-query attention and a mixture in every layer.
std::unique_ptr<Model> make_mixtral(const ModelConfig& config, DecoderWeights weights);

}  // namespace braid

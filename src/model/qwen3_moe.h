#pragma once

#include <memory>

#include "model/layer_weights.h"
#include "model/model.h"

namespace braid {

// Qwen3MoeForCausalLM: grouped-query attention with a norm on each head of q and k, and in each
// layer a mixture or, where mlp_only_layers and decoder_sparse_step say so, a dense MLP.
std::unique_ptr<Model> make_qwen3_moe(const ModelConfig& config, DecoderWeights weights);

}  // namespace braid

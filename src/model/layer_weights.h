#pragma once

#include <functional>
#include <vector>

#include "base/result.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_source.h"
#include "kernels/moe/moe.h"

namespace braid {

struct AttentionWeights {
  Weight q_proj, k_proj, v_proj;  // [heads * head_dim, H]
  Weight o_proj;                  // [H, num_attention_heads * head_dim]
  std::vector<float> q_norm;      // [head_dim], or empty
  std::vector<float> k_norm;
};

struct MoeWeights {
  Weight router;                                // [E, H]
  std::vector<kernels::ExpertWeights> experts;  // [E], views into `owned`
  std::vector<Weight> owned;                    // gate, up, down of each expert
};

struct MlpWeights {
  Weight gate_proj, up_proj;  // [intermediate_size, H]
  Weight down_proj;           // [H, intermediate_size]
};

// One decoder layer: attention, and either a mixture or a dense MLP.
struct LayerWeights {
  std::vector<float> input_norm;           // [H]
  std::vector<float> post_attention_norm;  // [H]
  AttentionWeights attention;
  MoeWeights moe;  // experts empty in a dense layer
  MlpWeights mlp;  // empty in a mixture layer
};

struct DecoderWeights {
  Weight embedding;  // [vocab, H]
  Weight lm_head;    // [vocab, H]; the embedding again where they are tied
  std::vector<float> final_norm;
  std::vector<LayerWeights> layers;
};

// Reads every weight of weight_table(config). `progress` is called with matrices done and in total.
//
// Errors  those of WeightSource
Result<DecoderWeights> load_decoder_weights(
    const ModelConfig& config, WeightSource& source,
    const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace braid

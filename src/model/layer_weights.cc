#include "model/layer_weights.h"

#include <utility>

#include "base/check.h"

namespace braid {
namespace {

bool is_norm(WeightRole role) {
  switch (role) {
    case WeightRole::kFinalNorm:
    case WeightRole::kInputNorm:
    case WeightRole::kPostAttentionNorm:
    case WeightRole::kQNorm:
    case WeightRole::kKNorm:
      return true;
    default:
      return false;
  }
}

std::vector<float>& norm_place(DecoderWeights& weights, const WeightSpec& spec) {
  if (spec.role == WeightRole::kFinalNorm) return weights.final_norm;
  LayerWeights& layer = weights.layers.at(static_cast<size_t>(spec.layer));
  switch (spec.role) {
    case WeightRole::kInputNorm:
      return layer.input_norm;
    case WeightRole::kPostAttentionNorm:
      return layer.post_attention_norm;
    case WeightRole::kQNorm:
      return layer.attention.q_norm;
    case WeightRole::kKNorm:
      return layer.attention.k_norm;
    default:
      BRAID_UNREACHABLE(static_cast<int>(spec.role));
  }
}

Weight& matrix_place(DecoderWeights& weights, const WeightSpec& spec) {
  if (spec.role == WeightRole::kEmbedding) return weights.embedding;
  if (spec.role == WeightRole::kLmHead) return weights.lm_head;
  LayerWeights& layer = weights.layers.at(static_cast<size_t>(spec.layer));
  const auto expert = [&](size_t which) -> Weight& {
    return layer.moe.owned.at(3 * static_cast<size_t>(spec.expert) + which);
  };
  switch (spec.role) {
    case WeightRole::kQProj:
      return layer.attention.q_proj;
    case WeightRole::kKProj:
      return layer.attention.k_proj;
    case WeightRole::kVProj:
      return layer.attention.v_proj;
    case WeightRole::kOProj:
      return layer.attention.o_proj;
    case WeightRole::kRouter:
      return layer.moe.router;
    case WeightRole::kGateProj:
      return layer.mlp.gate_proj;
    case WeightRole::kUpProj:
      return layer.mlp.up_proj;
    case WeightRole::kDownProj:
      return layer.mlp.down_proj;
    case WeightRole::kExpertGateProj:
      return expert(0);
    case WeightRole::kExpertUpProj:
      return expert(1);
    case WeightRole::kExpertDownProj:
      return expert(2);
    default:
      BRAID_UNREACHABLE(static_cast<int>(spec.role));
  }
}

}  // namespace

Result<DecoderWeights> load_decoder_weights(
    const ModelConfig& config, WeightSource& source,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  DecoderWeights weights;
  weights.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    if (config.is_moe_layer[i]) {
      weights.layers[i].moe.owned.resize(3 * static_cast<size_t>(config.num_experts));
    }
  }
  const std::vector<WeightSpec> table = weight_table(config);
  int64_t done = 0;
  for (const WeightSpec& spec : table) {
    if (progress) progress(done++, static_cast<int64_t>(table.size()));
    if (is_norm(spec.role)) {
      auto values = source.vector(spec);
      if (!values) return pass_on(values);
      norm_place(weights, spec) = std::move(*values);
    } else {
      auto matrix = source.matrix(spec);
      if (!matrix) return pass_on(matrix);
      matrix_place(weights, spec) = std::move(*matrix);
    }
  }
  if (config.tie_word_embeddings) weights.lm_head = weights.embedding;
  for (LayerWeights& layer : weights.layers) {
    const std::vector<Weight>& owned = layer.moe.owned;
    for (size_t i = 0; i < owned.size(); i += 3) {
      layer.moe.experts.push_back(
          {.gate = owned[i].matrix, .up = owned[i + 1].matrix, .down = owned[i + 2].matrix});
    }
  }
  if (progress) progress(static_cast<int64_t>(table.size()), static_cast<int64_t>(table.size()));
  return weights;
}

}  // namespace braid

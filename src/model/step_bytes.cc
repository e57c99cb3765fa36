#include "model/step_bytes.h"

#include <cmath>
#include <map>

#include "adapter/adapter_image.h"

namespace braid {
namespace {

size_t bytes_of(const Weight& weight) { return weight.matrix ? weight_bytes(weight.matrix) : 0; }

size_t bytes_of(const std::vector<float>& norm) { return norm.size() * sizeof(float); }

size_t pair_bytes(const LoraPair& pair, int64_t in, int64_t out) {
  return static_cast<size_t>(pair.rank * (in + out)) * sizeof(Bf16);
}

// What a layer's experts read of one adapter. A factor that n experts point to is read when any of
// them is touched.
double expert_bytes(const ModelConfig& config, const std::vector<ExpertLora>& experts,
                    int64_t num_tokens) {
  struct Factor {
    size_t bytes = 0;
    int32_t last_expert = -1;
    int32_t num_experts = 0;
  };
  std::map<const Bf16*, Factor> factors;
  for (int32_t e = 0; e < static_cast<int32_t>(experts.size()); ++e) {
    const auto add = [&](const Bf16* data, int64_t elements) {
      if (elements == 0) return;
      Factor& factor = factors[data];
      factor.bytes = static_cast<size_t>(elements) * sizeof(Bf16);
      if (factor.last_expert != e) ++factor.num_experts;
      factor.last_expert = e;
    };
    const ExpertLora& lora = experts[static_cast<size_t>(e)];
    const int64_t hidden = config.hidden_size, inner = config.moe_intermediate_size;
    add(lora.gate.a, lora.gate.rank * hidden);
    add(lora.gate.b_t, lora.gate.rank * inner);
    add(lora.up.a, lora.up.rank * hidden);
    add(lora.up.b_t, lora.up.rank * inner);
    add(lora.down.a, lora.down.rank * inner);
    add(lora.down.b_t, lora.down.rank * hidden);
  }
  const double missed_by_one = 1.0 - static_cast<double>(config.top_k) / config.num_experts;
  double total = 0;
  for (const auto& [data, factor] : factors) {
    // A token's experts are distinct: n of them are all missed with probability C(E - n, top_k) /
    // C(E, top_k).
    double missed = 1.0;
    for (int32_t i = 0; i < factor.num_experts; ++i) {
      const double left = config.num_experts - config.top_k - i;
      missed *= left > 0 ? left / (config.num_experts - i) : 0.0;
    }
    if (factor.num_experts == 1) missed = missed_by_one;
    total += static_cast<double>(factor.bytes) *
             (1.0 - std::pow(missed, static_cast<double>(num_tokens)));
  }
  return total;
}

// The same of packed factors: of a stride of 0 where all experts share them.
double packed_expert_bytes(const ModelConfig& config, const kernels::MoeAdapterSlot& slot,
                           int64_t num_tokens) {
  const double experts = expected_experts(config, num_tokens);
  const auto bytes = [&](int64_t stride, int64_t elements) {
    return static_cast<double>(elements) * sizeof(Bf16) * (stride == 0 ? 1.0 : experts);
  };
  const int64_t hidden = config.hidden_size, inner = config.moe_intermediate_size;
  const int64_t up_rank = slot.rank_gate_up, down_rank = slot.rank_down;
  return bytes(slot.shrink_gate_up_stride, up_rank * hidden * (slot.one_a != 0 ? 1 : 2)) +
         bytes(slot.expand_gate_up_stride, up_rank * inner * 2) +
         bytes(slot.shrink_down_stride, down_rank * inner) +
         bytes(slot.expand_down_stride, down_rank * hidden);
}

}  // namespace

double expected_experts(const ModelConfig& config, int64_t num_tokens) {
  const double missed = 1.0 - static_cast<double>(config.top_k) / config.num_experts;
  return config.num_experts * (1.0 - std::pow(missed, static_cast<double>(num_tokens)));
}

WeightBytes bytes_of(const ModelConfig& config, const DecoderWeights& weights) {
  WeightBytes bytes = {
      .always = bytes_of(weights.lm_head) + bytes_of(weights.final_norm),
      .embedding_row = weight_bytes(weights.embedding.matrix.format, 1, config.hidden_size)};
  for (const LayerWeights& layer : weights.layers) {
    const AttentionWeights& a = layer.attention;
    bytes.always += bytes_of(layer.input_norm) + bytes_of(layer.post_attention_norm);
    bytes.always += bytes_of(a.q_norm) + bytes_of(a.k_norm);
    bytes.always += bytes_of(a.q_proj) + bytes_of(a.k_proj);
    bytes.always += bytes_of(a.v_proj) + bytes_of(a.o_proj);
    bytes.always += bytes_of(layer.mlp.gate_proj) + bytes_of(layer.mlp.up_proj);
    bytes.always += bytes_of(layer.mlp.down_proj) + bytes_of(layer.moe.router);
    for (const Weight& weight : layer.moe.owned) bytes.experts += bytes_of(weight);
  }
  return bytes;
}

size_t step_bytes(const ModelConfig& config, const WeightBytes& weights, int64_t num_tokens) {
  if (num_tokens == 0) return 0;
  const size_t total = weights.always + static_cast<size_t>(num_tokens) * weights.embedding_row;
  if (weights.experts == 0) return total;
  const double share = expected_experts(config, num_tokens) / config.num_experts;
  return total + static_cast<size_t>(std::llround(static_cast<double>(weights.experts) * share));
}

size_t adapter_step_bytes(const ModelConfig& config, const Adapter& adapter, int64_t num_tokens) {
  if (num_tokens == 0) return 0;
  const int64_t hidden = config.hidden_size;
  size_t dense = pair_bytes(adapter.lm_head, hidden, config.vocab_size);
  if (adapter.embedding.rank > 0) {
    dense += static_cast<size_t>(adapter.embedding.rank * (num_tokens + hidden)) * sizeof(Bf16);
  }
  double experts = 0;
  if (adapter.image != nullptr) {
    for (const LayerAdapterEntries& layer : adapter.image->layers)
      experts += packed_expert_bytes(config, layer.experts, num_tokens);
  }
  for (const LayerLora& layer : adapter.layers) {
    const auto add = [&](LoraTarget target, int64_t in, int64_t out) {
      dense += pair_bytes(layer.linear[static_cast<size_t>(target)], in, out);
    };
    add(LoraTarget::kQProj, hidden, config.q_size());
    add(LoraTarget::kKProj, hidden, config.kv_size());
    add(LoraTarget::kVProj, hidden, config.kv_size());
    add(LoraTarget::kOProj, config.q_size(), hidden);
    add(LoraTarget::kRouter, hidden, config.num_experts);
    add(LoraTarget::kGateProj, hidden, config.intermediate_size);
    add(LoraTarget::kUpProj, hidden, config.intermediate_size);
    add(LoraTarget::kDownProj, config.intermediate_size, hidden);
    if (adapter.image == nullptr) experts += expert_bytes(config, layer.experts, num_tokens);
  }
  return dense + static_cast<size_t>(std::llround(experts));
}

}  // namespace braid

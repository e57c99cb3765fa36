#include "tests/gpu/gpu_models.h"

#include <functional>

#include "tests/model/tiny_models.h"

namespace braid::test {
namespace {

using Change = std::function<void(Adapter&)>;

std::shared_ptr<const Adapter> changed(const Adapter& adapter, const Change& change) {
  auto copy = std::make_shared<Adapter>(adapter);
  change(*copy);
  return copy;
}

void leave_head_and_embedding(Adapter& adapter) {
  adapter.lm_head = {};
  adapter.embedding = {};
}

void leave_experts(Adapter& adapter) {
  for (LayerLora& layer : adapter.layers) layer.experts.clear();
}

void leave_linear(Adapter& adapter, int first_target) {
  for (LayerLora& layer : adapter.layers) {
    for (int t = first_target; t < kNumLoraTargets; ++t) layer.linear[static_cast<size_t>(t)] = {};
  }
}

}  // namespace

ModelConfig padded_mixtral() {
  ModelConfig config = tiny_mixtral();
  config.hidden_size = 192;
  config.head_dim = 64;
  config.moe_intermediate_size = 192;
  config.num_experts = 8;
  config.vocab_size = 261;
  config.quant_method = QuantMethod::kFp8Block128;
  return config;
}

ModelConfig mixed_qwen3_moe() {
  ModelConfig config = tiny_qwen3_moe();
  config.hidden_size = 256;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 2;
  config.head_dim = 64;
  config.intermediate_size = 320;
  config.moe_intermediate_size = 128;
  config.num_experts = 16;
  config.top_k = 4;
  config.vocab_size = 512;
  config.quant_method = QuantMethod::kFp8Block128;
  return config;
}

std::vector<std::shared_ptr<const Adapter>> adapters_of_all_kinds(const ModelConfig& config) {
  uint64_t seed = 50;
  // Deltas of dummy factors are a tenth of what they are added to.
  const auto larger = [](Adapter& adapter) {
    for (LayerLora& layer : adapter.layers) {
      float scaling = 3.0f;
      for (LoraPair& pair : layer.linear) {
        scaling += 0.25f;
        pair.scaling *= scaling;
      }
      for (ExpertLora& expert : layer.experts) {
        expert.gate.scaling *= 3.0f;
        expert.up.scaling *= 4.0f;
        expert.down.scaling *= 5.0f;
      }
    }
  };
  const auto full = [&](
                        int32_t rank, const Change& change = [](Adapter&) {}) {
    return changed(*make_full_adapter(config, rank, seed++), [&](Adapter& adapter) {
      larger(adapter);
      change(adapter);
    });
  };
  const auto one_a = [](Adapter& adapter) {
    for (LayerLora& layer : adapter.layers) {
      for (ExpertLora& expert : layer.experts) expert.up.a = expert.gate.a;
    }
  };
  const auto shared_outer = [](Adapter& adapter) {
    for (LayerLora& layer : adapter.layers) {
      for (ExpertLora& expert : layer.experts) {
        expert.gate.a = layer.experts[0].gate.a;
        expert.up.a = layer.experts[0].up.a;
        expert.down.b_t = layer.experts[0].down.b_t;
      }
    }
  };
  const auto attention = [](Adapter& adapter) {
    leave_head_and_embedding(adapter);
    leave_experts(adapter);
    leave_linear(adapter, static_cast<int>(LoraTarget::kRouter));
  };
  const auto experts = [](Adapter& adapter) {
    leave_head_and_embedding(adapter);
    leave_linear(adapter, 0);
  };
  const auto head_and_embedding = [](Adapter& adapter) {
    leave_experts(adapter);
    leave_linear(adapter, 0);
  };
  return {full(1),
          full(8),
          full(20),
          full(64),
          full(16, one_a),
          full(12, shared_outer),
          full(8, attention),
          full(24, experts),
          full(4, head_and_embedding),
          changed(*make_sparse_adapter(config, seed), larger)};
}

}  // namespace braid::test

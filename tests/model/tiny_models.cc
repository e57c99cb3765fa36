#include "tests/model/tiny_models.h"

#include <random>
#include <utility>

#include "adapter/dummy_adapter.h"
#include "base/result.h"

namespace braid::test {

ModelConfig tiny_mixtral() {
  ModelConfig config;
  config.architecture = Architecture::kMixtral;
  config.hidden_size = 160;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  config.moe_intermediate_size = 144;
  config.num_experts = 5;
  config.top_k = 2;
  config.is_moe_layer = {true, true};
  config.vocab_size = 131;
  config.max_position_embeddings = 512;
  config.rms_norm_eps = 1e-5f;
  return config;
}

ModelConfig tiny_qwen3_moe() {
  ModelConfig config;
  config.architecture = Architecture::kQwen3Moe;
  config.hidden_size = 96;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 3;
  config.num_key_value_heads = 1;
  config.head_dim = 48;
  config.intermediate_size = 176;
  config.moe_intermediate_size = 64;
  config.num_experts = 7;
  config.top_k = 3;
  config.norm_topk_prob = false;
  config.is_moe_layer = {true, false, true, false};
  config.vocab_size = 97;
  config.max_position_embeddings = 512;
  config.rope_theta = 1e6;
  config.tie_word_embeddings = true;
  config.qk_norm = true;
  return config;
}

std::shared_ptr<const Adapter> make_full_adapter(const ModelConfig& config, int32_t rank,
                                                 uint64_t seed) {
  auto adapter = std::make_shared<Adapter>(*make_dummy_adapter(config, "full", rank, seed));
  std::mt19937_64 random(seed);
  const auto memory = std::make_shared<FactorMemory>();
  adapter->storage.push_back(memory);
  const auto factor = [&](int64_t elements, float scale) {
    const auto values = memory->allocate(static_cast<size_t>(elements));
    for (Bf16& value : values) {
      value = to_bf16(scale * (static_cast<float>(random() >> 40) * 0x1p-23f - 1.0f));
    }
    return values.data();
  };
  const int64_t hidden = config.hidden_size, vocab = config.vocab_size;
  adapter->lm_head = {.a = factor(rank * hidden, 0.15f),
                      .b_t = factor(rank * vocab, 0.15f),
                      .rank = rank,
                      .scaling = 1.5f};
  adapter->embedding = {.a_t = factor(vocab * rank, 0.5f),
                        .b = factor(hidden * rank, 0.5f),
                        .rank = rank,
                        .scaling = 0.75f};
  return adapter;
}

std::shared_ptr<const Adapter> make_sparse_adapter(const ModelConfig& config, uint64_t seed) {
  const auto low = make_dummy_adapter(config, "low", 2, seed);
  const auto high = make_dummy_adapter(config, "high", 24, seed + 1);
  auto adapter = std::make_shared<Adapter>();
  adapter->name = "sparse";
  adapter->hash = {.high = seed, .low = 0x5ba45e};
  adapter->max_rank = 24;
  adapter->storage = low->storage;
  adapter->storage.insert(adapter->storage.end(), high->storage.begin(), high->storage.end());
  adapter->layers.resize(low->layers.size());

  constexpr auto kO = static_cast<size_t>(LoraTarget::kOProj);
  adapter->layers.back().linear[kO] = high->layers.back().linear[kO];
  std::vector<ExpertLora>& experts = adapter->layers.front().experts;
  experts.resize(static_cast<size_t>(config.num_experts));
  for (size_t e = 0; e < experts.size(); e += 2) {
    experts[e] = low->layers.front().experts[e];
    experts[e].down = high->layers.front().experts[e].down;
  }
  experts[1].up = high->layers.front().experts[1].up;
  experts[2].gate = {};
  return adapter;
}

Result<Weight> BrokenSource::matrix(const WeightSpec& spec) {
  if (spec.module == broken_) return fail(ErrorCode::kNotFound, "{}: no such tensor", spec.module);
  return source_->matrix(spec);
}

Result<std::vector<float>> BrokenSource::vector(const WeightSpec& spec) {
  if (spec.module == broken_) return fail(ErrorCode::kNotFound, "{}: no such tensor", spec.module);
  return source_->vector(spec);
}

}  // namespace braid::test

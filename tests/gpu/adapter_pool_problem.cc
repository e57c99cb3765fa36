#include "tests/gpu/adapter_pool_problem.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace braid::test {

TwinAdapters::TwinAdapters(const ModelConfig& config, const AdapterShapes& shapes,
                           const AdapterRecipe& recipe, uint32_t seed)
    : recipe_(recipe), random_(seed) {
  const auto put = [](const Twins<LoraPair>& twins, LoraPair& of_own, LoraPair& of_wide) {
    of_own = twins.own, of_wide = twins.wide;
  };
  for (Adapter* adapter : {&own, &wide}) {
    adapter->name = "twin";
    adapter->hash = {.high = 1, .low = seed};
    adapter->max_rank = recipe.rank;
    adapter->layers.resize(static_cast<size_t>(config.num_hidden_layers));
  }
  const int32_t hidden = config.hidden_size, width = config.intermediate_size;
  for (size_t i = 0; i < own.layers.size(); ++i) {
    LayerLora &layer = own.layers[i], &wide_layer = wide.layers[i];
    const auto linear = [&](LoraTarget target, const kernels::LinearShape& shape, int32_t slice,
                            int32_t in, int32_t out) {
      const auto t = static_cast<size_t>(target);
      put(draw_pair(in, shape.in, out, shape.slice_out[slice]), layer.linear[t],
          wide_layer.linear[t]);
    };
    if (recipe.attention) {
      linear(LoraTarget::kQProj, shapes.qkv_proj, 0, hidden, config.q_size());
      linear(LoraTarget::kVProj, shapes.qkv_proj, 2, hidden, config.kv_size());
      linear(LoraTarget::kOProj, shapes.o_proj, 0, config.q_size(), hidden);
    }
    if (config.is_moe_layer[i]) {
      if (recipe.router) linear(LoraTarget::kRouter, shapes.router, 0, hidden, config.num_experts);
      if (!recipe.experts) continue;
      for (int32_t e = 0; e < config.num_experts; ++e) {
        const auto twins = draw_expert(config, shapes.moe);
        layer.experts.push_back(twins.own);
        wide_layer.experts.push_back(twins.wide);
        if (!recipe.shared_outer) continue;
        const auto share = [](std::vector<ExpertLora>& experts) {
          ExpertLora& last = experts.back();
          const ExpertLora& first = experts.front();
          last.gate.a = first.gate.a, last.gate.rank = first.gate.rank;
          last.up.a = first.up.a, last.up.rank = first.up.rank;
          last.down.b_t = first.down.b_t, last.down.rank = first.down.rank;
          last.down.scaling = first.down.scaling;
        };
        share(layer.experts);
        share(wide_layer.experts);
      }
    } else if (recipe.mlp) {
      linear(LoraTarget::kGateProj, shapes.gate_up_proj, 0, hidden, width);
      linear(LoraTarget::kUpProj, shapes.gate_up_proj, 1, hidden, width);
      linear(LoraTarget::kDownProj, shapes.down_proj, 0, width, hidden);
    }
  }
  if (recipe.lm_head) {
    put(draw_pair(hidden, shapes.lm_head.in, config.vocab_size, shapes.lm_head.slice_out[0]),
        own.lm_head, wide.lm_head);
  }
  if (recipe.embedding) {
    const int32_t rank = draw_rank();
    const Bf16* const a_t = draw_factor(config.vocab_size, rank, rank).own;
    // B is [hidden, rank] here: padding adds rows.
    std::vector<Bf16>& b = memory_.emplace_back();
    b.assign(static_cast<size_t>(shapes.moe.hidden_size * rank), {});
    const Bf16* const values = draw_factor(hidden, rank, rank).own;
    std::copy_n(values, hidden * rank, b.begin());
    own.embedding = {.a_t = a_t, .b = values, .rank = rank, .scaling = 0.5f};
    wide.embedding = {.a_t = a_t, .b = b.data(), .rank = rank, .scaling = 0.5f};
  }
}

int32_t TwinAdapters::draw_rank() {
  if (!recipe_.mixed_ranks) return recipe_.rank;
  return 1 + static_cast<int32_t>(random_() % static_cast<uint32_t>(recipe_.rank));
}

TwinAdapters::Twins<const Bf16*> TwinAdapters::draw_factor(int32_t rank, int32_t cols,
                                                           int32_t wide_cols) {
  const auto rows = static_cast<size_t>(rank);
  std::vector<Bf16>& own_values = memory_.emplace_back(rows * static_cast<size_t>(cols));
  // Any bits below 2.
  for (Bf16& value : own_values) value.bits = static_cast<uint16_t>(random_() & 0xbfff);
  std::vector<Bf16>& wide_values = memory_.emplace_back(rows * static_cast<size_t>(wide_cols));
  for (int64_t r = 0; r < rank; ++r) {
    std::copy_n(own_values.begin() + r * cols, cols, wide_values.begin() + r * wide_cols);
  }
  return {own_values.data(), wide_values.data()};
}

TwinAdapters::Twins<LoraPair> TwinAdapters::draw_pair(int32_t in, int32_t wide_in, int32_t out,
                                                      int32_t wide_out,
                                                      const Twins<LoraPair>* with_a_of) {
  const int32_t rank = with_a_of != nullptr ? with_a_of->own.rank : draw_rank();
  const auto a = with_a_of != nullptr ? Twins<const Bf16*>{with_a_of->own.a, with_a_of->wide.a}
                                      : draw_factor(rank, in, wide_in);
  const auto b_t = draw_factor(rank, out, wide_out);
  const float scaling = 1.0f / static_cast<float>(1 + random_() % 7);
  return {{.a = a.own, .b_t = b_t.own, .rank = rank, .scaling = scaling},
          {.a = a.wide, .b_t = b_t.wide, .rank = rank, .scaling = scaling}};
}

TwinAdapters::Twins<ExpertLora> TwinAdapters::draw_expert(const ModelConfig& config,
                                                          const kernels::MoeSizes& sizes) {
  const int32_t hidden = config.hidden_size, width = config.moe_intermediate_size;
  const int32_t wide_hidden = sizes.hidden_size, wide_width = sizes.moe_intermediate_size;
  const auto gate = draw_pair(hidden, wide_hidden, width, wide_width);
  const auto up =
      draw_pair(hidden, wide_hidden, width, wide_width, recipe_.one_a ? &gate : nullptr);
  const auto down = draw_pair(width, wide_width, hidden, wide_hidden);
  return {{.gate = gate.own, .up = up.own, .down = down.own},
          {.gate = gate.wide, .up = up.wide, .down = down.wide}};
}

std::shared_ptr<const Adapter> packed(const AdapterPool& pool, const Adapter& adapter) {
  auto result = pool.pack(adapter);
  EXPECT_TRUE(result) << result.error().message;
  return result ? *result : nullptr;
}

ModelConfig padded_model() {
  ModelConfig config;
  config.hidden_size = 192;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  config.intermediate_size = 160;
  config.moe_intermediate_size = 64;
  config.num_experts = 8;
  config.top_k = 2;
  config.is_moe_layer = {true, false, true};
  config.vocab_size = 1003;
  return config;
}

AdapterShapes padded_shapes() {
  const auto linear = [](int32_t in, std::initializer_list<int32_t> slices) {
    kernels::LinearShape shape = {.in = in, .num_slices = static_cast<int32_t>(slices.size())};
    std::ranges::copy(slices, shape.slice_out);
    return shape;
  };
  return {.moe = {.hidden_size = 256,
                  .moe_intermediate_size = 128,
                  .num_experts = 8,
                  .num_shared_experts = 0,
                  .top_k = 2},
          .qkv_proj = linear(256, {128, 64, 64}),
          .o_proj = linear(128, {192}),
          .router = linear(192, {16}),
          .gate_up_proj = linear(192, {192, 192}),
          .down_proj = linear(192, {192}),
          .lm_head = linear(192, {1008})};
}

}  // namespace braid::test

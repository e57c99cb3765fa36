#include "checkpoint/weight_table.h"

#include <fmt/format.h>

#include <span>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace braid {
namespace {

struct Name {
  WeightRole role;
  std::string_view module;  // below model.layers.L. ; for an expert below ...experts.E.
};

// What differs between the architectures: which weights a layer has, and their names.
struct NameTable {
  std::span<const Name> attention;
  std::span<const Name> moe;
  std::span<const Name> dense;
  std::string_view experts;  // folder of the experts
  std::span<const Name> expert;
};

using enum WeightRole;

constexpr Name kAttention[] = {
    {kInputNorm, "input_layernorm"}, {kQProj, "self_attn.q_proj"},
    {kKProj, "self_attn.k_proj"},    {kVProj, "self_attn.v_proj"},
    {kOProj, "self_attn.o_proj"},    {kPostAttentionNorm, "post_attention_layernorm"}};

constexpr Name kNormedAttention[] = {
    {kInputNorm, "input_layernorm"}, {kQProj, "self_attn.q_proj"},
    {kKProj, "self_attn.k_proj"},    {kVProj, "self_attn.v_proj"},
    {kOProj, "self_attn.o_proj"},    {kQNorm, "self_attn.q_norm"},
    {kKNorm, "self_attn.k_norm"},    {kPostAttentionNorm, "post_attention_layernorm"}};

constexpr Name kMixtralMoe[] = {{kRouter, "block_sparse_moe.gate"}};
constexpr Name kMixtralExpert[] = {
    {kExpertGateProj, "w1"}, {kExpertUpProj, "w3"}, {kExpertDownProj, "w2"}};
constexpr NameTable kMixtral = {.attention = kAttention,
                                .moe = kMixtralMoe,
                                .dense = {},
                                .experts = "block_sparse_moe.experts",
                                .expert = kMixtralExpert};

constexpr Name kQwen3Moe[] = {{kRouter, "mlp.gate"}};
constexpr Name kQwen3Dense[] = {
    {kGateProj, "mlp.gate_proj"}, {kUpProj, "mlp.up_proj"}, {kDownProj, "mlp.down_proj"}};
constexpr Name kQwen3Expert[] = {
    {kExpertGateProj, "gate_proj"}, {kExpertUpProj, "up_proj"}, {kExpertDownProj, "down_proj"}};
constexpr NameTable kQwen3MoeTable = {.attention = kNormedAttention,
                                      .moe = kQwen3Moe,
                                      .dense = kQwen3Dense,
                                      .experts = "mlp.experts",
                                      .expert = kQwen3Expert};

const NameTable& name_table(Architecture architecture) {
  switch (architecture) {
    case Architecture::kMixtral:
      return kMixtral;
    case Architecture::kQwen3Moe:
      return kQwen3MoeTable;
  }
  BRAID_UNREACHABLE(static_cast<int>(architecture));
}

// [out, in], or [length, 0] of a norm.
std::pair<int32_t, int32_t> shape_of(WeightRole role, const ModelConfig& c) {
  switch (role) {
    case kEmbedding:
    case kLmHead:
      return {c.vocab_size, c.hidden_size};
    case kFinalNorm:
    case kInputNorm:
    case kPostAttentionNorm:
      return {c.hidden_size, 0};
    case kQProj:
      return {c.q_size(), c.hidden_size};
    case kKProj:
    case kVProj:
      return {c.kv_size(), c.hidden_size};
    case kOProj:
      return {c.hidden_size, c.q_size()};
    case kQNorm:
    case kKNorm:
      return {c.head_dim, 0};
    case kRouter:
      return {c.num_experts, c.hidden_size};
    case kGateProj:
    case kUpProj:
      return {c.intermediate_size, c.hidden_size};
    case kDownProj:
      return {c.hidden_size, c.intermediate_size};
    case kExpertGateProj:
    case kExpertUpProj:
      return {c.moe_intermediate_size, c.hidden_size};
    case kExpertDownProj:
      return {c.hidden_size, c.moe_intermediate_size};
  }
  BRAID_UNREACHABLE(static_cast<int>(role));
}

}  // namespace

std::string_view name(WeightRole role) {
  switch (role) {
    case kEmbedding:
      return "embed_tokens";
    case kFinalNorm:
      return "norm";
    case kLmHead:
      return "lm_head";
    case kInputNorm:
      return "input_layernorm";
    case kPostAttentionNorm:
      return "post_attention_layernorm";
    case kQProj:
      return "q_proj";
    case kKProj:
      return "k_proj";
    case kVProj:
      return "v_proj";
    case kOProj:
      return "o_proj";
    case kQNorm:
      return "q_norm";
    case kKNorm:
      return "k_norm";
    case kRouter:
      return "router";
    case kGateProj:
      return "gate_proj";
    case kUpProj:
      return "up_proj";
    case kDownProj:
      return "down_proj";
    case kExpertGateProj:
      return "experts.gate_proj";
    case kExpertUpProj:
      return "experts.up_proj";
    case kExpertDownProj:
      return "experts.down_proj";
  }
  BRAID_UNREACHABLE(static_cast<int>(role));
}

bool is_usually_quantised(WeightRole role) {
  switch (role) {
    case kQProj:
    case kKProj:
    case kVProj:
    case kOProj:
    case kGateProj:
    case kUpProj:
    case kDownProj:
    case kExpertGateProj:
    case kExpertUpProj:
    case kExpertDownProj:
      return true;
    case kEmbedding:
    case kFinalNorm:
    case kLmHead:
    case kInputNorm:
    case kPostAttentionNorm:
    case kQNorm:
    case kKNorm:
    case kRouter:
      return false;
  }
  BRAID_UNREACHABLE(static_cast<int>(role));
}

std::vector<WeightSpec> weight_table(const ModelConfig& config) {
  std::vector<WeightSpec> table;
  const auto add = [&](WeightRole role, int32_t layer, int32_t expert, std::string module) {
    const auto [rows, cols] = shape_of(role, config);
    table.push_back({role, layer, expert, std::move(module), rows, cols});
  };
  const NameTable& names = name_table(config.architecture);
  add(kEmbedding, -1, -1, "model.embed_tokens");
  for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    for (const Name& n : names.attention) add(n.role, layer, -1, prefix + std::string(n.module));
    if (!config.is_moe_layer[static_cast<size_t>(layer)]) {
      for (const Name& n : names.dense) add(n.role, layer, -1, prefix + std::string(n.module));
      continue;
    }
    for (const Name& n : names.moe) add(n.role, layer, -1, prefix + std::string(n.module));
    for (int32_t expert = 0; expert < config.num_experts; ++expert) {
      for (const Name& n : names.expert) {
        add(n.role, layer, expert,
            fmt::format("{}{}.{}.{}", prefix, names.experts, expert, n.module));
      }
    }
  }
  add(kFinalNorm, -1, -1, "model.norm");
  if (!config.tie_word_embeddings) add(kLmHead, -1, -1, "lm_head");
  return table;
}

}  // namespace braid

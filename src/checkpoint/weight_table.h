#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.h"

namespace braid {

enum class WeightRole {
  kEmbedding,
  kFinalNorm,
  kLmHead,
  kInputNorm,
  kPostAttentionNorm,
  kQProj,
  kKProj,
  kVProj,
  kOProj,
  kQNorm,
  kKNorm,
  kRouter,
  kGateProj,  // of a dense MLP layer
  kUpProj,
  kDownProj,
  kExpertGateProj,
  kExpertUpProj,
  kExpertDownProj,
};

std::string_view name(WeightRole role);  // "q_proj", "experts.gate_proj", "router", ...

// Whether releases quantise it: projections of attention, MLP and experts; not router, norms,
// embeddings and head.
bool is_usually_quantised(WeightRole role);

// One weight a model of this config has: what it is, its name and its shape.
struct WeightSpec {
  WeightRole role;
  int32_t layer = -1;   // -1: not in a layer
  int32_t expert = -1;  // -1: not in an expert
  std::string module;   // "model.layers.0.self_attn.q_proj": the name without ".weight"
  int32_t rows = 0;     // out; the length of a norm
  int32_t cols = 0;     // in; 0 for a norm
};

// Every weight of the model, each architecture from its own name table. A tied lm_head is left out.
std::vector<WeightSpec> weight_table(const ModelConfig& config);

}  // namespace braid

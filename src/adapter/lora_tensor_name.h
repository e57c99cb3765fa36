#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace braid {

// What a tensor of an adapter file belongs to. Linear modules of a layer stand first.
enum class LoraModule {
  kQProj,
  kKProj,
  kVProj,
  kOProj,
  kRouter,
  kGateProj,  // of a dense MLP layer
  kUpProj,
  kDownProj,
  kGateUpProj,  // both in one
  kExpertGateProj,
  kExpertUpProj,
  kExpertDownProj,
  kExpertGateUpProj,
  kExpertParameter,  // 3-D `target_parameters`: shapes tell which one
  kLmHead,
  kEmbedding,
};

enum class LoraTensorPart {
  kA,
  kB,
  kBaseCopy,  // the frozen base table that PEFT saves beside the factors of lm_head and
              // embed_tokens
};

struct LoraTensorName {
  LoraModule module = LoraModule::kQProj;
  LoraTensorPart part = LoraTensorPart::kA;
  int32_t layer = -1;        // -1: not in a layer
  int32_t expert = -1;       // -1: not of one expert
  int32_t nesting = 0;       // kExpertParameter: how many `.base_layer` the wrapper stands under
  std::string trained_name;  // the module as its writer named it, without `base_model.model.`
  std::string plain_name;    // the same with known prefixes taken off: "layers.0.mlp.gate"
};

// Takes the known spellings of writers apart: with or without `base_model.model.` and `.default`,
// under `model.`, `model.model.`, `model.language_model.`, `language_model.model.` and
// `language_model.`, experts as gate/up/down_proj, w1/w3/w2 or gate_up_proj, under `mlp` or
// `block_sparse_moe`; `unembed_tokens` is lm_head.
//
// Errors  kUnsupported  DoRA magnitudes, biases, saved modules, modules that no model has; the
//                       message names the tensor
Result<LoraTensorName> parse_lora_tensor_name(const std::string& tensor);

}  // namespace braid

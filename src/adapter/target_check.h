#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "adapter/lora_config.h"

namespace braid {

// A module that the file holds a pair of factors for.
struct TrainedModule {
  std::string name;        // as its writer named it, without `base_model.model.`
  std::string plain_name;  // with known prefixes taken off: "layers.0.mlp.gate"
  int32_t layer = -1;      // -1: not in a layer
  std::string parameter;   // of 3-D `target_parameters`: "gate_up_proj" or "down_proj"; else ""
};

// Holds what adapter_config.json says was trained (target_modules, exclude_modules,
// layers_to_transform, layers_pattern, target_parameters) against what the file has factors for.
// The tensors decide; every contradiction is a sentence. Names match by PEFT's rule: whole, or as
// a dotted end; a text in place of a list is a regular expression for the whole name.
std::vector<std::string> cross_check_targets(const LoraConfig& config,
                                             std::span<const TrainedModule> modules);

}  // namespace braid

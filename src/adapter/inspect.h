#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "adapter/lora_config.h"
#include "base/json_fwd.h"
#include "base/result.h"

namespace braid {

// Tensors whose names differ only in layer and expert number and that agree in type and shape.
struct AdapterTensorGroup {
  std::string name;  // "layers.*.mlp.experts.*.up_proj.lora_A"
  std::string dtype;
  std::string shape;
  int64_t count = 0;
};

// What an adapter folder says of itself, without a base model to hold it against.
struct AdapterSummary {
  LoraConfig config;
  std::vector<AdapterTensorGroup> groups;  // by name
  int64_t num_tensors = 0;
  int64_t num_parameters = 0;
  size_t bytes = 0;
};

// Errors  those of read_lora_config, Safetensors::open_folder and parse_lora_tensor_name
Result<AdapterSummary> inspect_adapter(const std::filesystem::path& folder);

Json to_json(const AdapterSummary& summary);

// Lines for people, each ended by a newline.
std::string render(const AdapterSummary& summary);

}  // namespace braid

#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapter/adapter.h"
#include "base/result.h"
#include "checkpoint/model_config.h"

namespace braid {

// Column order of B in 3-D expert factors; not decidable from shapes (docs/adapters.md).
enum class ExpertLayout { kAuto, kPeft, kGrouped };

struct AdapterReadOptions {
  std::string name;
  ExpertLayout expert_layout = ExpertLayout::kAuto;
  int32_t max_lora_rank = 256;
  std::string base_model_name;  // compared with the config's, for a warning; "" compares nothing
};

// What was found in an adapter folder, for people: printed by `braid validate`, kept for /metrics.
struct AdapterReport {
  std::string layout;  // "per-expert 2-D", "3-D target_parameters, current orientation", ...
  std::vector<std::string> evidence;  // why: one sentence each
  std::vector<std::string> warnings;  // all-zero deltas, another base model's name, ...
  std::vector<std::string> targets;   // "q_proj x48 (rank 16)", ...
  int64_t num_tensors = 0;            // in the file; all of them are applied
  int64_t num_parameters = 0;
  size_t bytes_in_file = 0;
  size_t bytes_resident = 0;  // after de-duplication, BF16
  int32_t num_factors = 0;    // matrices A and B per adapted matrix of the model
  int32_t num_distinct_factors = 0;
  int32_t min_rank = 0;
  int32_t max_rank = 0;
};

struct AdapterAndReport {
  std::shared_ptr<const Adapter> adapter;
  AdapterReport report;
};

// Reads a PEFT LoRA folder (adapter_config.json + adapter_model.safetensors) for a base model of
// this config. Every tensor of the file is applied, or the read fails naming it, its value and what
// helps.
//
// Errors  kNotFound  kIo  kCorrupt  kInvalidArgument (rank over the limit, wrong base shapes)
//         kUnsupported (DoRA, modules_to_save, bias, ... by name)
Result<AdapterAndReport> read_adapter(const std::filesystem::path& folder,
                                      const ModelConfig& config, const AdapterReadOptions& options);

}  // namespace braid

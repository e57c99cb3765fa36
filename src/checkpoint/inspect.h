#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_table.h"

namespace braid {

std::string_view name(QuantMethod method);  // "none", "fp8 128x128", "modelopt nvfp4", ...

// All weights of one role in one storage format.
struct RoleSummary {
  WeightRole role = WeightRole::kEmbedding;
  std::string format;  // name(WeightFormat); norms are counted as "bf16"
  int64_t count = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;  // scales included
};

// What a checkpoint folder holds, for `braid inspect`.
struct CheckpointSummary {
  ModelConfig config;
  bool has_weights = false;  // false: only a config.json; formats are then what it announces
  std::vector<RoleSummary> roles;
  int64_t parameters = 0;
  int64_t active_parameters = 0;  // that one token uses: top_k experts a layer, one embedding row
  int64_t bytes = 0;
};

// Reads a checkpoint folder, or one that holds only a config.json, without loading weights; scale
// tensors are read and checked.
//
// Errors  those of read_model_config, open_checkpoint and WeightSource
Result<CheckpointSummary> inspect_checkpoint(const std::filesystem::path& folder);

Json to_json(const CheckpointSummary& summary);

}  // namespace braid

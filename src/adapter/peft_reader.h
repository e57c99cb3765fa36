#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapter/adapter.h"
#include "base/result.h"
#include "braid/adapter.h"
#include "braid/adapter_report.h"
#include "checkpoint/model_config.h"

namespace braid {

// Column order of B in 3-D expert factors; not decidable from shapes (docs/adapters.md).
enum class ExpertLayout { kAuto, kPeft, kGrouped };

struct AdapterReadOptions {
  std::string name;
  ExpertLayout expert_layout = ExpertLayout::kAuto;
  int32_t max_lora_rank = 256;
  // A name or a path, compared with the config's for a warning; "" compares nothing.
  std::string base_model_name;
  // Not empty: a canonical folder that no file, symbolic links followed, may lie out of.
  std::filesystem::path within;
};

struct AdapterAndReport {
  std::shared_ptr<const Adapter> adapter;
  AdapterReport report;
};

// The model's name in "org/name", the path of its folder, or that of a snapshot in a Hugging Face
// cache (".../models--org--name/snapshots/REVISION").
std::string base_model_name(std::string name_or_path);

// Whether two such names are of one model: without regard to case, nor to a weight format at the
// end ("-FP8", "-NVFP4"), which does not change what an adapter was trained on.
bool is_same_base_model(const std::string& a, const std::string& b);

// Reads a PEFT LoRA folder (adapter_config.json + adapter_model.safetensors) for a base model of
// this config. Every tensor of the file is applied, or the read fails naming it, its value and what
// helps. Files are read into memory first, so that whoever writes to the folder meanwhile cannot
// make a mixture of two adapters or a crash: the read fails.
//
// Errors  kNotFound  kIo (also: changed while it was read)  kCorrupt  kInvalidArgument (rank over
// the limit, wrong base shapes)
//         kUnsupported (DoRA, modules_to_save, bias, ... by name)
Result<AdapterAndReport> read_adapter(const std::filesystem::path& folder,
                                      const ModelConfig& config, const AdapterReadOptions& options);

// The same from the two files in memory; there is no model card to tell who wrote them.
Result<AdapterAndReport> read_adapter(const AdapterBytes& bytes, const ModelConfig& config,
                                      const AdapterReadOptions& options);

}  // namespace braid

#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace braid {

// One entry of rank_pattern or alpha_pattern.
struct PatternEntry {
  std::string key;  // a regular expression, matched as PatternTable says
  double value = 0;
};

// What an adapter_config.json says that changes the result, or tells who wrote the file.
// Source: LoraConfig of huggingface/peft 0.17 to 0.21.
struct LoraConfig {
  int32_t r = 0;          // >= 1
  double lora_alpha = 0;  // finite
  bool use_rslora = false;
  std::vector<PatternEntry> rank_pattern;   // in the order of the file: the first match counts
  std::vector<PatternEntry> alpha_pattern;  // likewise
  std::string base_model_name_or_path;      // "" when absent

  // What was trained, for comparison with the tensors; empty when absent. A text instead of a list
  // is a regular expression.
  std::vector<std::string> target_modules, exclude_modules;
  std::string target_modules_regex, exclude_modules_regex;
  std::vector<std::string> target_parameters;
  std::vector<int64_t> layers_to_transform;
  std::vector<std::string> layers_pattern;

  // Evidence about the writer, for the column order of 3-D expert factors.
  std::string peft_version;    // "" when absent
  bool has_peft_keys = false;  // keys only PEFT's own writer leaves: layers_to_transform, ...
  bool says_unsloth = false;   // the config's keys, its base model or the model card name it
  int num_keys = 0;

  std::vector<std::string> warnings;  // keys this build does not know, ...
};

// Every key is applied, known to have no effect on inference, reported, or refused by name.
//
// Errors  kCorrupt (a key missing, of the wrong type or out of range)
//         kUnsupported (not LoRA, DoRA, bias, modules_to_save, ...)
Result<LoraConfig> parse_lora_config(std::string_view text);

// folder/adapter_config.json, and from folder/README.md whether Unsloth is named as the writer.
//
// Errors  kNotFound  kIo  and those above, with the file's path in front
Result<LoraConfig> read_lora_config(const std::filesystem::path& folder,
                                    const FileAccess& access = {});

}  // namespace braid

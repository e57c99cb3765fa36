#pragma once

#include <filesystem>
#include <string>

#include "adapter/peft_reader.h"
#include "base/json_fwd.h"
#include "base/result.h"

namespace braid {

// Reads an adapter as a server would, against the config.json of a model folder; base weights are
// not read, so the folder may hold nothing else. Fills options.base_model_name when it is empty.
//
// Errors  those of read_model_config and read_adapter
Result<AdapterAndReport> validate_adapter(const std::filesystem::path& folder,
                                          const std::filesystem::path& model_folder,
                                          AdapterReadOptions options = {});

// {"layout": ..., "evidence": [...], "warnings": [...], "targets": [...], "num_tensors": ..., ...}
Json to_json(const AdapterReport& report);

// Lines for people, each ended by a newline.
std::string render(const AdapterReport& report);

// 32 hexadecimal digits.
std::string to_string(const AdapterHash& hash);

}  // namespace braid

#pragma once

#include <filesystem>

#include "base/result.h"
#include "checkpoint/safetensors.h"

namespace braid {

// The tensors of an adapter folder: adapter_model.safetensors, or its shards by index.
//
// Errors  those of Safetensors::open_folder  kUnsupported (only a pickle is there)
Result<Safetensors> open_adapter_tensors(const std::filesystem::path& folder,
                                         const FileAccess& access = {});

}  // namespace braid

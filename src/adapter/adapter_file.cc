#include "adapter/adapter_file.h"

#include <system_error>

namespace braid {

Result<Safetensors> open_adapter_tensors(const std::filesystem::path& folder,
                                         const FileAccess& access) {
  const auto exists = [&](const char* file) {
    std::error_code ignored;
    return std::filesystem::exists(folder / file, ignored);
  };
  if (!exists("adapter_model.safetensors") && !exists("adapter_model.safetensors.index.json")) {
    for (const char* pickle : {"adapter_model.bin", "adapter_model.pt"}) {
      if (!exists(pickle)) continue;
      return fail(ErrorCode::kUnsupported,
                  "{} is a pickle, which can run code when it is opened; save the adapter with "
                  "safe_serialization=True to get adapter_model.safetensors",
                  (folder / pickle).string());
    }
  }
  return Safetensors::open_folder(folder, "adapter_model", access);
}

}  // namespace braid

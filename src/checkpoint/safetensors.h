#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "tensor/tensor_view.h"

namespace braid {

// A safetensors file or a folder of shards, mapped read-only. Every tensor of every shard has been
// checked when open returns: header size and JSON, dtype known, shape non-negative and without
// overflow, byte range equal to shape times dtype, inside the file, without overlap or gap.
// Source: the safetensors format description of the huggingface/safetensors repository.
class Safetensors {
 public:
  // One file.
  //
  // Errors  kNotFound  kIo  kCorrupt (each names file, tensor, value and rule)
  static Result<Safetensors> open_file(const std::filesystem::path& file,
                                       const FileAccess& access = {});

  // A folder: `<stem>.safetensors.index.json` with its shards, or a single `<stem>.safetensors`.
  // With an index, exactly its tensors must be in the shards it names; names that leave the folder
  // are refused.
  static Result<Safetensors> open_folder(const std::filesystem::path& folder,
                                         const std::string& stem = "model",
                                         const FileAccess& access = {});

  // Null when there is no such tensor. Valid while this object or keep_alive() lives.
  const TensorView* find(const std::string& name) const;

  // Sorted by name.
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }

  // The header's `__metadata__` (first shard's for a folder): string to string.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // The mappings behind the views.
  const std::vector<std::shared_ptr<const MappedFile>>& files() const { return files_; }

 private:
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// One tensor to be written; bytes are produced when their turn comes, so that a whole model never
// has to stand in memory.
struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::kU8;
  Shape shape;
  std::function<Result<std::vector<std::byte>>()> bytes;
};

// Writes a safetensors file with 8-byte aligned data beside `path`, then renames it.
//
// Errors  kIo, and whatever an entry's `bytes` returns
Status write_safetensors(const std::filesystem::path& path,
                         const std::vector<SafetensorsEntry>& entries,
                         const std::map<std::string, std::string>& metadata = {});

}  // namespace braid

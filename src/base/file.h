#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace braid {

// What to expect of whoever else can write where a file lies.
struct FileAccess {
  // The file may be changed in place while it is open: MappedFile reads it into memory, and finds
  // out if it changed meanwhile.
  bool changes = false;
  // Not empty: a canonical folder. The file that is opened, symbolic links followed, must lie in
  // it.
  std::filesystem::path within;
};

// Whether a canonical path is the canonical folder or below it.
bool lies_within(const std::filesystem::path& path, const std::filesystem::path& folder);

// The whole of a regular file.
//
// Errors  kNotFound  kIo  kInvalidArgument (larger than max_bytes, not a regular file, or outside
//         of access.within)
Result<std::string> read_file(const std::filesystem::path& path, size_t max_bytes,
                              const FileAccess& access = {});

// Writes to a neighbour and renames it over path, so that a reader sees the old file or the new
// one, never half of one.
//
// Errors  kIo
Status write_file(const std::filesystem::path& path, std::string_view bytes);

// A file mapped read-only into memory. Bytes stay valid and in place until the object goes.
// A file that another process shortens while it is mapped raises SIGBUS on access: writers
// replace files by rename (as write_file does), they do not change them in place. Where one cannot
// rely on that, FileAccess::changes.
class MappedFile {
 public:
  // An empty file gives no bytes.
  //
  // Errors  kNotFound  kIo (also: changed while it was read)
  //         kInvalidArgument (not a regular file, or outside of access.within)
  static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path,
                                                        const FileAccess& access = {});

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::filesystem::path path_;
  const std::byte* data_;
  size_t size_;
};

}  // namespace braid

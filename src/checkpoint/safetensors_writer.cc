#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

// A file that appears under its name only once it is whole; otherwise nothing is left behind.
class PendingFile {
 public:
  explicit PendingFile(fs::path path)
      : path_(std::move(path)), temporary_(path_.string() + ".XXXXXX") {}
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  ~PendingFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  Status open() {
    fd_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
    if (fd_ >= 0) return {};
    auto failed = system_error("create a file beside it");
    temporary_.clear();
    return failed;
  }

  Status write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return system_error("write");
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }

  Status commit() {
    if (::fchmod(fd_, 0644) != 0) return system_error("set the mode of");
    if (::close(std::exchange(fd_, -1)) != 0) return system_error("finish writing");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return system_error("rename a file to");
    temporary_.clear();
    return {};
  }

 private:
  tl::unexpected<Error> system_error(const char* action) const {
    return fail(ErrorCode::kIo, "{}: cannot {}: {}", path_.string(), action, std::strerror(errno));
  }

  fs::path path_;
  std::string temporary_;  // empty when there is nothing to remove
  int fd_ = -1;
};

std::string make_header(const std::vector<const SafetensorsEntry*>& entries,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const SafetensorsEntry* entry : entries) {
    BRAID_CHECK(!header.contains(entry->name));
    const uint64_t end =
        offset + static_cast<uint64_t>(num_elements(entry->shape)) * size_of(entry->dtype);
    header[entry->name] = {
        {"dtype", name(entry->dtype)}, {"shape", entry->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

Status write_safetensors(const fs::path& path, const std::vector<SafetensorsEntry>& entries,
                         const std::map<std::string, std::string>& metadata) {
  // The format allows no padding between tensors, so wide elements go first: then each tensor is
  // aligned to its own element size.
  std::vector<const SafetensorsEntry*> sorted;
  for (const SafetensorsEntry& entry : entries) sorted.push_back(&entry);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
                     return size_of(a->dtype) > size_of(b->dtype);
                   });
  const std::string header = make_header(sorted, metadata);
  const uint64_t header_bytes = header.size();

  PendingFile file(path);
  if (auto status = file.open(); !status) return status;
  if (auto status = file.write(std::as_bytes(std::span(&header_bytes, 1))); !status) return status;
  if (auto status = file.write(std::as_bytes(std::span(header))); !status) return status;
  for (const SafetensorsEntry* entry : sorted) {
    auto bytes = entry->bytes();
    if (!bytes) return pass_on(bytes);
    BRAID_CHECK_EQ(bytes->size(),
                   static_cast<size_t>(num_elements(entry->shape)) * size_of(entry->dtype));
    if (auto status = file.write(*bytes); !status) return status;
  }
  return file.commit();
}

}  // namespace braid

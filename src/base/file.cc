#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace braid {
namespace {

namespace fs = std::filesystem;

// Closes what it holds when it goes.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

tl::unexpected<Error> system_error(const fs::path& path, const char* action) {
  const int reason = errno;
  const auto code = reason == ENOENT || reason == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo;
  return fail(code, "{}: cannot {}: {}", path.string(), action, std::strerror(reason));
}

Result<size_t> regular_file_size(const Descriptor& file, const fs::path& path) {
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) return system_error(path, "read its size");
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "{}: not a regular file", path.string());
  }
  return static_cast<size_t>(info.st_size);
}

}  // namespace

Result<std::string> read_file(const fs::path& path, size_t max_bytes) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused just below.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return system_error(path, "open for reading");
  auto size = regular_file_size(file, path);
  if (!size) return pass_on(size);
  if (*size > max_bytes) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} bytes, at most {} are accepted", path.string(),
                *size, max_bytes);
  }
  std::string text(*size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(file.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path, "read");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

Status write_file(const fs::path& path, std::string_view bytes) {
  std::string temporary = path.string() + ".XXXXXX";
  Descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (file.get() < 0) return system_error(path, "create a file beside it");
  const auto give_up = [&](const char* action) {
    auto error = system_error(path, action);
    ::unlink(temporary.c_str());
    return error;
  };
  while (!bytes.empty()) {
    const ssize_t n = ::write(file.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return give_up("write");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  if (::fchmod(file.get(), 0644) != 0) return give_up("set the mode of");
  if (::close(file.release()) != 0) return give_up("finish writing");
  if (::rename(temporary.c_str(), path.c_str()) != 0) return give_up("rename the new file to");
  return {};
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return system_error(path, "open for reading");
  auto size = regular_file_size(file, path);
  if (!size) return pass_on(size);
  void* data = nullptr;
  if (*size > 0) {
    data = ::mmap(nullptr, *size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) return system_error(path, "map");
  }
  return std::shared_ptr<const MappedFile>(
      new MappedFile(path, static_cast<const std::byte*>(data), *size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace braid

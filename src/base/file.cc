#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&&) = delete;
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

Result<struct stat> regular_file_stat(const Descriptor& file, const fs::path& path) {
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) return system_error(path, "read its size");
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::kInvalidArgument, "{}: not a regular file", path.string());
  }
  return info;
}

Result<Descriptor> open_for_reading(const fs::path& path, const FileAccess& access) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused later.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return system_error(path, "open for reading");
  if (access.within.empty()) return file;
  // Asked of the open file: a link that is changed now makes no difference any more.
  std::error_code error;
  const auto place = fs::read_symlink(fmt::format("/proc/self/fd/{}", file.get()), error);
  if (error)
    return fail(ErrorCode::kIo, "{}: cannot find out where it lies: {}", path.string(),
                error.message());
  if (!lies_within(place, access.within)) {
    return fail(ErrorCode::kInvalidArgument, "{}: leads out of {}", path.string(),
                access.within.string());
  }
  return file;
}

// Reads up to `size` bytes; fewer if the file ends before.
Result<size_t> read_up_to(const Descriptor& file, std::byte* out, size_t size,
                          const fs::path& path) {
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::read(file.get(), out + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path, "read");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

bool is_same_time(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

bool lies_within(const fs::path& path, const fs::path& folder) {
  const auto [end, ignored] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

Result<std::string> read_file(const fs::path& path, size_t max_bytes, const FileAccess& access) {
  const auto file = open_for_reading(path, access);
  if (!file) return tl::unexpected<Error>(file.error());
  auto info = regular_file_stat(*file, path);
  if (!info) return pass_on(info);
  const auto size = static_cast<size_t>(info->st_size);
  if (size > max_bytes) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} bytes, at most {} are accepted", path.string(),
                size, max_bytes);
  }
  std::string text(size, '\0');
  auto done = read_up_to(*file, reinterpret_cast<std::byte*>(text.data()), size, path);
  if (!done) return pass_on(done);
  text.resize(*done);
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

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const fs::path& path,
                                                           const FileAccess& access) {
  const auto file = open_for_reading(path, access);
  if (!file) return tl::unexpected<Error>(file.error());
  auto before = regular_file_stat(*file, path);
  if (!before) return pass_on(before);
  const auto size = static_cast<size_t>(before->st_size);
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(path, nullptr, 0));
  void* data = access.changes ? ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                              : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file->get(), 0);
  if (data == MAP_FAILED) return system_error(path, "map");
  std::shared_ptr<const MappedFile> mapped(
      new MappedFile(path, static_cast<const std::byte*>(data), size));
  if (!access.changes) return mapped;
  auto done = read_up_to(*file, static_cast<std::byte*>(data), size, path);
  if (!done) return pass_on(done);
  auto after = regular_file_stat(*file, path);
  if (!after) return pass_on(after);
  if (*done != size || after->st_size != before->st_size ||
      !is_same_time(after->st_mtim, before->st_mtim)) {
    return fail(ErrorCode::kIo, "{}: changed while it was read; try again when it is complete",
                path.string());
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace braid

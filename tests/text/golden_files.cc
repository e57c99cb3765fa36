#include "tests/text/golden_files.h"

#include <cstring>
#include <stdexcept>
#include <string_view>

#include "base/file.h"

namespace braid::text::test {
namespace {

// Reads little-endian numbers and bytes off the front of a file.
class Reader {
 public:
  Reader(const std::filesystem::path& path, std::string_view magic) : path_(path) {
    auto file = read_file(path, size_t{1} << 30);
    if (!file) throw std::runtime_error(file.error().message);
    bytes_ = std::move(*file);
    if (take(8) != magic) throw std::runtime_error(path.string() + ": wrong magic");
  }
  std::string_view take(size_t n) {
    if (bytes_.size() - at_ < n) throw std::runtime_error(path_.string() + ": too short");
    at_ += n;
    return std::string_view(bytes_).substr(at_ - n, n);
  }
  uint32_t number() {
    uint32_t value = 0;
    std::memcpy(&value, take(4).data(), 4);
    return value;
  }

 private:
  std::filesystem::path path_;
  std::string bytes_;
  size_t at_ = 0;
};

}  // namespace

std::vector<std::string> read_texts(const std::filesystem::path& path) {
  Reader in(path, "BRDTEXT1");
  std::vector<std::string> texts(in.number());
  for (std::string& text : texts) text = in.take(in.number());
  return texts;
}

std::vector<std::vector<int32_t>> read_ids(const std::filesystem::path& path) {
  Reader in(path, "BRDIDS01");
  std::vector<std::vector<int32_t>> rows(in.number());
  for (auto& row : rows) {
    row.resize(in.number());
    const std::string_view bytes = in.take(row.size() * 4);
    if (!row.empty()) std::memcpy(row.data(), bytes.data(), bytes.size());
  }
  return rows;
}

std::filesystem::path tokenizer_goldens() {
  return std::filesystem::path(BRAID_MADE_DATA_DIR) / "tokenizer";
}

}  // namespace braid::text::test

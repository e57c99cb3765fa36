#include "checkpoint/safetensors_header.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/json.h"

namespace braid {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are mapped as they are stored");

// The reference reader's limit.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

constexpr std::array kDtypes = {Dtype::kF64,    Dtype::kF32,    Dtype::kF16, Dtype::kBf16,
                                Dtype::kF8E4M3, Dtype::kF8E5M2, Dtype::kI64, Dtype::kI32,
                                Dtype::kI16,    Dtype::kI8,     Dtype::kU64, Dtype::kU32,
                                Dtype::kU16,    Dtype::kU8,     Dtype::kBool};

Result<Dtype> parse_dtype(const Json& value) {
  if (!value.is_string()) return fail(ErrorCode::kCorrupt, "dtype is not a string");
  const auto& text = value.get_ref<const std::string&>();
  for (const Dtype dtype : kDtypes) {
    if (text == name(dtype)) return dtype;
  }
  return fail(ErrorCode::kUnsupported,
              "dtype {} is not known, F64, F32, F16, BF16, F8_E4M3, F8_E5M2, BOOL and integers are",
              quote_name(text));
}

// Sizes whose running product, in order, fits 63 bits, so that num_elements() cannot overflow.
Result<Shape> parse_shape(const Json& value) {
  if (!value.is_array()) return fail(ErrorCode::kCorrupt, "shape is not an array");
  Shape shape;
  int64_t product = 1;
  for (const Json& size : value) {
    if (!size.is_number_unsigned()) {
      return fail(ErrorCode::kCorrupt, "shape holds {}, sizes are non-negative integers",
                  size.is_number() ? size.dump() : std::string("a value that is not a number"));
    }
    const auto n = size.get<uint64_t>();
    if (n > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        __builtin_mul_overflow(product, static_cast<int64_t>(n), &product)) {
      return fail(ErrorCode::kCorrupt, "shape {} has more than 2^63 - 1 elements",
                  value.dump().substr(0, 100));
    }
    shape.push_back(static_cast<int64_t>(n));
  }
  return shape;
}

Result<TensorView> parse_tensor(const Json& entry, std::span<const std::byte> data) {
  if (!entry.is_object()) return fail(ErrorCode::kCorrupt, "its header entry is not an object");
  for (const auto& [key, value] : entry.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return fail(ErrorCode::kCorrupt, "its header entry has an unknown key {}", quote_name(key));
    }
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) return fail(ErrorCode::kCorrupt, "its header entry has no {}", key);
  }
  auto dtype = parse_dtype(entry["dtype"]);
  if (!dtype) return pass_on(dtype);
  auto shape = parse_shape(entry["shape"]);
  if (!shape) return pass_on(shape);
  const Json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return fail(ErrorCode::kCorrupt, "data_offsets are not two non-negative integers");
  }
  const auto begin = offsets[0].get<uint64_t>();
  const auto end = offsets[1].get<uint64_t>();
  if (begin > end) {
    return fail(ErrorCode::kCorrupt, "data_offsets [{}, {}] end before they begin", begin, end);
  }
  if (end > data.size()) {
    return fail(ErrorCode::kCorrupt, "data_offsets [{}, {}] end past the file's {} data bytes",
                begin, end, data.size());
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(num_elements(*shape), static_cast<int64_t>(size_of(*dtype)), &bytes) ||
      static_cast<uint64_t>(bytes) != end - begin) {
    return fail(ErrorCode::kCorrupt,
                "{} of shape {} does not take the {} bytes of data_offsets [{}, {}]", name(*dtype),
                to_string(*shape), end - begin, begin, end);
  }
  return TensorView{*dtype, std::move(*shape), data.subspan(begin, end - begin)};
}

// Every data byte belongs to exactly one tensor: otherwise two readers could see different files.
Status check_cover(const SafetensorsContents& contents, std::span<const std::byte> data) {
  struct Extent {
    size_t begin;
    size_t end;
    const std::string* name;
  };
  std::vector<Extent> extents;
  extents.reserve(contents.tensors.size());
  for (const auto& [key, view] : contents.tensors) {
    const auto begin = static_cast<size_t>(view.bytes.data() - data.data());
    extents.push_back({begin, begin + view.bytes.size(), &key});
  }
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  size_t position = 0;
  const std::string* previous = nullptr;
  for (const Extent& extent : extents) {
    if (extent.begin < position) {
      return fail(ErrorCode::kCorrupt, "tensor {}: bytes [{}, {}) overlap those of tensor {}",
                  quote_name(*extent.name), extent.begin, extent.end, quote_name(*previous));
    }
    if (extent.begin > position) {
      return fail(ErrorCode::kCorrupt, "data bytes [{}, {}) before tensor {} belong to no tensor",
                  position, extent.begin, quote_name(*extent.name));
    }
    position = extent.end;
    previous = extent.name;
  }
  if (position != data.size()) {
    return fail(ErrorCode::kCorrupt, "data bytes [{}, {}) at the end belong to no tensor", position,
                data.size());
  }
  return {};
}

Result<std::map<std::string, std::string>> parse_metadata(const Json& value) {
  if (!value.is_object()) return fail(ErrorCode::kCorrupt, "__metadata__ is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return fail(ErrorCode::kCorrupt, "__metadata__ entry {} is not a string", quote_name(key));
    }
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

}  // namespace

std::string quote_name(std::string_view name) {
  std::string out = "\"";
  for (const char c : name.substr(0, 200)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '"' || c == '\\') {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + (name.size() > 200 ? "...\"" : "\"");
}

Result<SafetensorsContents> parse_safetensors(std::span<const std::byte> file) {
  uint64_t header_bytes = 0;
  if (file.size() < sizeof(header_bytes)) {
    return fail(ErrorCode::kCorrupt,
                "file is {} bytes, safetensors begin with an 8-byte header size", file.size());
  }
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes) {
    return fail(ErrorCode::kCorrupt, "header size is {} bytes, at most {} are accepted",
                header_bytes, kMaxHeaderBytes);
  }
  if (header_bytes > file.size() - sizeof(header_bytes)) {
    return fail(ErrorCode::kCorrupt, "header size is {} bytes, only {} follow it", header_bytes,
                file.size() - sizeof(header_bytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof(header_bytes),
                              header_bytes);
  const auto data = file.subspan(sizeof(header_bytes) + header_bytes);
  if (text.empty() || text.front() != '{') {
    return fail(ErrorCode::kCorrupt, "header does not begin with '{{'");
  }
  auto json = parse_json(text, {.max_bytes = kMaxHeaderBytes, .max_depth = 4});
  if (!json) return pass_on(json, "header");

  SafetensorsContents contents;
  for (const auto& [key, entry] : json->items()) {
    if (key == "__metadata__") {
      auto metadata = parse_metadata(entry);
      if (!metadata) return pass_on(metadata);
      contents.metadata = std::move(*metadata);
      continue;
    }
    auto view = parse_tensor(entry, data);
    if (!view) return pass_on(view, "tensor " + quote_name(key));
    contents.tensors.emplace(key, std::move(*view));
  }
  if (auto covered = check_cover(contents, data); !covered) return pass_on(covered);
  return contents;
}

}  // namespace braid

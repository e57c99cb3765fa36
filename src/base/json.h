#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"

namespace braid {

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  int max_depth = 64;
};

// Parses one JSON value. Text is hostile: size and depth are checked before anything is built,
// duplicate keys are refused (two readers could see different files), NaN is not JSON.
//
// Errors  kCorrupt  not JSON (byte offset and reason), too deep, a key twice in one object
//         kInvalidArgument  larger than limits.max_bytes
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// Reads and parses a file; the path stands in front of each message.
//
// Errors  kNotFound, kIo, and those of parse_json
Result<Json> read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

}  // namespace braid

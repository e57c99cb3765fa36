#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "tensor/tensor_view.h"

namespace braid {

// What one safetensors file holds. The views point into the bytes that were parsed.
struct SafetensorsContents {
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

// Reads a whole safetensors file: an 8-byte little-endian header size, a JSON header, the data.
// The bytes are hostile. When it returns, every tensor has a known dtype, a shape whose size in
// bytes does not overflow and equals its byte range, and the ranges cover the data exactly once.
//
// Errors  kCorrupt  kUnsupported (a dtype that is not known); each names tensor, value and rule
// Source: the format description of the huggingface/safetensors repository.
Result<SafetensorsContents> parse_safetensors(std::span<const std::byte> file);

// A name out of a hostile file as it may stand in a message: quoted, control and non-ASCII bytes
// as \xNN, cut after 200 bytes.
std::string quote_name(std::string_view name);

}  // namespace braid

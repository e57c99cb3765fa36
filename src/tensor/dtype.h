#pragma once

#include <cstddef>
#include <string_view>

namespace braid {

// Element types as they stand in safetensors files.
enum class Dtype {
  kF64,
  kF32,
  kF16,
  kBf16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool
};

// Bytes of one element.
size_t size_of(Dtype dtype);

// The safetensors spelling: "BF16", "F8_E4M3", ...
std::string_view name(Dtype dtype);

}  // namespace braid

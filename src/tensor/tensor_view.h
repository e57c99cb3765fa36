#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace braid {

// Sizes, slowest dimension first. An empty shape is a scalar of one element.
using Shape = std::vector<int64_t>;

// Product of the sizes. The caller has checked that it fits (safetensors does so on open).
int64_t num_elements(const Shape& shape);

// "[2048, 768]"
std::string to_string(const Shape& shape);

// Bytes with a type and a shape: row-major, contiguous, not owned, of any alignment.
struct TensorView {
  Dtype dtype = Dtype::kU8;
  Shape shape;
  std::span<const std::byte> bytes;  // num_elements(shape) * size_of(dtype)
};

// Converts every element of an F64, F32, F16 or BF16 tensor; exact but for F64, which is rounded to
// nearest. out has room for num_elements(shape) floats. Throws InternalError for another dtype.
void copy_to_float(const TensorView& tensor, float* out);

// binary16 to float, exact; subnormals, infinities and NaN included.
float from_f16(uint16_t bits);

}  // namespace braid

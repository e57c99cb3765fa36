#include "tensor/tensor_view.h"

#include <bit>
#include <cstring>

#include "base/bf16.h"
#include "base/check.h"

namespace braid {
namespace {

// Reads elements of type T from bytes of any alignment.
template <class T, class Convert>
void convert_all(std::span<const std::byte> bytes, float* out, Convert convert) {
  const size_t n = bytes.size() / sizeof(T);
  for (size_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = convert(value);
  }
}

}  // namespace

int64_t num_elements(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

float from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

void copy_to_float(const TensorView& tensor, float* out) {
  BRAID_CHECK_EQ(tensor.bytes.size(),
                 static_cast<size_t>(num_elements(tensor.shape)) * size_of(tensor.dtype));
  switch (tensor.dtype) {
    case Dtype::kF64:
      return convert_all<double>(tensor.bytes, out, [](double x) { return static_cast<float>(x); });
    case Dtype::kF32:
      if (!tensor.bytes.empty()) std::memcpy(out, tensor.bytes.data(), tensor.bytes.size());
      return;
    case Dtype::kF16:
      return convert_all<uint16_t>(tensor.bytes, out, from_f16);
    case Dtype::kBf16:
      return convert_all<Bf16>(tensor.bytes, out, [](Bf16 x) { return to_float(x); });
    default:
      BRAID_UNREACHABLE(static_cast<int>(tensor.dtype));
  }
}

}  // namespace braid

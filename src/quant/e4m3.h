#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace braid {

// OCP FP8 E4M3 ("fn"): 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, NaN is 0x7f and
// 0xff, largest value 448, smallest subnormal 2^-9. Source: OCP 8-bit Floating Point, revision 1.0.
inline constexpr float kE4m3Max = 448.0f;

namespace internal {

constexpr std::array<float, 256> make_e4m3_values() {
  std::array<float, 256> values{};
  for (int bits = 0; bits < 128; ++bits) {
    const int exponent = bits >> 3;
    // Subnormals have no hidden bit and the exponent of the first normals.
    float value = static_cast<float>(exponent == 0 ? bits & 7 : (bits & 7) + 8) * 0x1p-9f;
    for (int i = 1; i < exponent; ++i) value *= 2;
    values[static_cast<size_t>(bits)] = value;
    values[static_cast<size_t>(bits) + 128] = -value;
  }
  values[0x7f] = values[0xff] = std::numeric_limits<float>::quiet_NaN();
  return values;
}
inline constexpr std::array<float, 256> kE4m3Values = make_e4m3_values();

}  // namespace internal

// Exact.
inline float from_e4m3(uint8_t bits) { return internal::kE4m3Values[bits]; }

// Rounds to nearest, ties to even; magnitudes above 448 saturate; NaN gives 0x7f.
uint8_t to_e4m3(float x);

}  // namespace braid

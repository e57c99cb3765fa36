#pragma once

#include <cstdint>

namespace braid {

// OCP FP8 E4M3 ("fn"): 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, NaN is 0x7f and
// 0xff, largest value 448, smallest subnormal 2^-9. Source: OCP 8-bit Floating Point, revision 1.0.
inline constexpr float kE4m3Max = 448.0f;

// Exact.
float from_e4m3(uint8_t bits);

// Rounds to nearest, ties to even; magnitudes above 448 saturate; NaN gives 0x7f.
uint8_t to_e4m3(float x);

}  // namespace braid

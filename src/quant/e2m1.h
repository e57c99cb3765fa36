#pragma once

#include <cstdint>

namespace braid {

// OCP FP4 E2M1: magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6; bit 3 is the sign. No infinity, no NaN.
// Source: OCP Microscaling Formats, version 1.0.
inline constexpr float kE2m1Max = 6.0f;

// Exact. bits in [0, 16).
float from_e2m1(uint8_t bits);

// Rounds to nearest, ties to even mantissa; magnitudes above 6 saturate. x is not NaN.
uint8_t to_e2m1(float x);

}  // namespace braid

#pragma once

#include <array>
#include <cstdint>

namespace braid {

// OCP FP4 E2M1: magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6; bit 3 is the sign. No infinity, no NaN.
// Source: OCP Microscaling Formats, version 1.0.
inline constexpr float kE2m1Max = 6.0f;

namespace internal {

inline constexpr std::array<float, 16> kE2m1Values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,
                                                      4.0f,  6.0f,  -0.0f, -0.5f, -1.0f, -1.5f,
                                                      -2.0f, -3.0f, -4.0f, -6.0f};

}  // namespace internal

// Exact. bits in [0, 16).
inline float from_e2m1(uint8_t bits) { return internal::kE2m1Values[bits]; }

// Rounds to nearest, ties to even mantissa; magnitudes above 6 saturate. x is not NaN.
uint8_t to_e2m1(float x);

}  // namespace braid

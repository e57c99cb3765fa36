#pragma once

#include <bit>
#include <cstdint>

namespace braid {

// The upper half of an IEEE float32. Storage only: arithmetic is done in float or double.
struct Bf16 {
  uint16_t bits = 0;

  friend bool operator==(Bf16, Bf16) = default;
};
static_assert(sizeof(Bf16) == 2);

inline float to_float(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// Rounds to nearest, ties to even. NaN stays NaN (quiet), values past the range become infinite.
inline Bf16 to_bf16(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

}  // namespace braid

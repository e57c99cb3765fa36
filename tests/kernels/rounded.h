#pragma once

#include <span>
#include <string>

namespace braid::test {

inline constexpr float kUntouched = 12345.0f;  // what nobody should have written to

// Empty when `got` are BF16 values, all of them `want` but a share of `few` at most, and these near
// it: float sums in another order may round to the other side, and what is computed from that too.
std::string why_not_rounded_alike(std::span<const float> got, std::span<const float> want,
                                  double few);

}  // namespace braid::test

#pragma once

namespace braid::kernels::sampling {

// exp(x) of x <= 0, to about a unit in the last place; 0 below -700. Without a branch, unlike
// exp(), so that those of several logits can be computed side by side.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, and 2^n times the Taylor series of exp(r), whose first term
// left out is r^13 / 13! < 2^-52.
__device__ __forceinline__ double exp_of_negative(double x) {
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  constexpr double kLn2High = 0x1.62e42fefa39efp-1, kLn2Low = 0x1.abc9e3b39803fp-56;
  constexpr double kRound = 0x1.8p52;  // a double of this size has no fraction
  const double shifted = fma(x, kLog2E, kRound);
  const int n = __double2loint(shifted);
  const double whole = shifted - kRound;
  const double r = fma(-whole, kLn2Low, fma(-whole, kLn2High, x));
  double sum = 1.0 / 479001600;
  sum = fma(sum, r, 1.0 / 39916800);
  sum = fma(sum, r, 1.0 / 3628800);
  sum = fma(sum, r, 1.0 / 362880);
  sum = fma(sum, r, 1.0 / 40320);
  sum = fma(sum, r, 1.0 / 5040);
  sum = fma(sum, r, 1.0 / 720);
  sum = fma(sum, r, 1.0 / 120);
  sum = fma(sum, r, 1.0 / 24);
  sum = fma(sum, r, 1.0 / 6);
  sum = fma(sum, r, 0.5);
  sum = fma(sum, r, 1.0);
  sum = fma(sum, r, 1.0);
  const double scaled = __hiloint2double(__double2hiint(sum) + (n << 20), __double2loint(sum));
  return x < -700 ? 0 : scaled;
}

}  // namespace braid::kernels::sampling

#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace braid::test {

// Empty when every got[i] is within tolerance[i] of want[i], otherwise a sentence that counts the
// elements that are off and names the worst. NaN or infinity in `got` is always off, and so is a
// difference in size. Tolerances are absolute, >= 0, one an element.
std::string why_not_close(std::span<const float> got, std::span<const double> want,
                          std::span<const double> tolerance);
std::string why_not_close(std::span<const float> got, std::span<const float> want,
                          std::span<const double> tolerance);

// ||got - want|| / ||want||; NaN in either gives infinity, and so does a want of zeros unless got
// is zeros too.
double relative_l2(std::span<const float> got, std::span<const float> want);

// gamma_n = n u / (1 - n u) for float sums of n terms: the error of a dot product is at most
// gamma_n * sum |x_i y_i|, in whatever order it was summed.
double fp32_gamma(int64_t n);

}  // namespace braid::test

#include "tests/support/close.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <vector>

namespace braid::test {

std::string why_not_close(std::span<const float> got, std::span<const double> want,
                          std::span<const double> tolerance) {
  if (got.size() != want.size() || want.size() != tolerance.size()) {
    return fmt::format("sizes differ: got {}, want {}, tolerance {}", got.size(), want.size(),
                       tolerance.size());
  }
  size_t num_off = 0, worst = 0;
  double worst_excess = -1;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - want[i]);
    // Written so that a NaN anywhere counts as off.
    if (std::isfinite(got[i]) && error <= tolerance[i]) continue;
    ++num_off;
    const double excess =
        std::isnan(error) ? std::numeric_limits<double>::infinity() : error - tolerance[i];
    if (excess > worst_excess) worst_excess = excess, worst = i;
  }
  if (num_off == 0) return "";
  return fmt::format("{} of {} elements are off; the worst is [{}]: got {}, want {}, tolerance {}",
                     num_off, got.size(), worst, got[worst], want[worst], tolerance[worst]);
}

std::string why_not_close(std::span<const float> got, std::span<const float> want,
                          std::span<const double> tolerance) {
  return why_not_close(got, std::vector<double>(want.begin(), want.end()), tolerance);
}

double relative_l2(std::span<const float> got, std::span<const float> want) {
  const double infinity = std::numeric_limits<double>::infinity();
  if (got.size() != want.size()) return infinity;
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = static_cast<double>(got[i]) - want[i];
    error += d * d;
    norm += static_cast<double>(want[i]) * want[i];
  }
  if (std::isnan(error) || std::isnan(norm)) return infinity;
  if (norm == 0) return error == 0 ? 0 : infinity;
  return std::sqrt(error / norm);
}

double fp32_gamma(int64_t n) {
  const double nu = static_cast<double>(n) * 0x1p-24;
  return nu / (1 - nu);
}

}  // namespace braid::test

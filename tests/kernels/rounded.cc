#include "tests/kernels/rounded.h"

#include <fmt/format.h>

#include <cmath>

#include "base/bf16.h"

namespace braid::test {

std::string why_not_rounded_alike(std::span<const float> got, std::span<const float> want,
                                  double few) {
  if (got.size() != want.size()) return fmt::format("{} elements of {}", got.size(), want.size());
  double squares = 0;
  for (const float x : want) squares += double{x} * x;
  const double typical = std::sqrt(squares / static_cast<double>(want.size()));
  size_t num_others = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] != to_float(to_bf16(got[i]))) return fmt::format("[{}] {} is no BF16", i, got[i]);
    if (got[i] == want[i]) continue;
    ++num_others;
    if (!(std::abs(got[i] - want[i]) <= 0x1p-6 * std::max(typical, double{std::abs(want[i])})))
      return fmt::format("[{}] {} instead of {}", i, got[i], want[i]);
  }
  const double share = static_cast<double>(num_others) / static_cast<double>(want.size());
  return share > few ? fmt::format("{:.1f} % are others", 100 * share) : "";
}

}  // namespace braid::test

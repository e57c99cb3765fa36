#pragma once

#include <optional>

#include "grammar/json_text.h"

namespace braid::grammar {

inline constexpr int32_t kMaxWholeDigits = 18;
inline constexpr int32_t kMaxFractionDigits = 17;

// Numbers without sign and exponent from |low| to |high|; nothing is a bound that does not bind.
// An integer's 0 has one form; fractions have 1 to kMaxFractionDigits digits, or as many as a
// bound. Returns the state behind, as fragments do.
StateId add_decimal_range(NetworkBuilder& net, StateId from, const std::optional<DecimalBound>& low,
                          const std::optional<DecimalBound>& high, bool is_integer);

}  // namespace braid::grammar

#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace braid {

/// Where a GPU's time went in the steps that were asked for.
struct OperationTimes {
  struct Operation {
    std::string_view name;  ///< "attention", "mixture", ...; valid for ever
    double seconds = 0.0;   ///< of all layers and steps
  };
  int64_t steps = 0;
  std::vector<Operation> operations;  ///< in the order of a step; a name once
};

}  // namespace braid

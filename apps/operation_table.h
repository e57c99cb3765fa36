#pragma once

#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "braid/operation_times.h"

namespace braid::apps {

// What was added to `before` until it was `now`.
OperationTimes since(const OperationTimes& now, const OperationTimes& before);

struct OperationColumn {
  std::string heading;
  OperationTimes times;
  double step_ms = 0;  // of steps whose operations are not timed
};

// Milliseconds a step of each operation and their share of the sum, a pair of columns for each; the
// operations in the order of the first column that has them. Ends with the sum and with the step.
std::string operation_table(const std::vector<OperationColumn>& columns);

// What has to be said under such a table.
extern const char* const kOperationTableNote;

// [{"operation": ..., "ms": of a step}, ...] in the order of a step.
Json operations_json(const OperationTimes& times);

}  // namespace braid::apps

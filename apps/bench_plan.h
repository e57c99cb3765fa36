#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace braid::apps {

// Requests that decode together, spread evenly over that many adapters; 0: the base model alone.
struct ArmShape {
  int32_t batch = 0;
  int32_t num_adapters = 0;
  friend bool operator==(const ArmShape&, const ArmShape&) = default;
};

struct BenchPlan {
  std::vector<ArmShape> arms;      // by batch; the base model first, as the others' baseline
  std::vector<std::string> notes;  // what of the request is left out, and why: one sentence each
  int32_t max_batch = 0;
  int32_t max_adapters = 0;
};

// Every batch size with every number of adapters that it can hold. `batch_option` is what errors
// and notes call the sizes' option.
//
// Errors  kInvalidArgument  a batch below 1, a count below 0, or adapters asked for and none of the
//                           batches large enough for them
Result<BenchPlan> plan_arms(const std::vector<int32_t>& batches,
                            const std::vector<int32_t>& adapter_counts, int32_t num_loras,
                            std::string_view batch_option = "--batch");

}  // namespace braid::apps

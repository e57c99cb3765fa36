#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace braid {

/// What was found in an adapter's folder and how it was read, for people.
struct AdapterReport {
  std::string layout;            ///< "per-expert 2-D", "3-D target_parameters, PEFT columns", ...
  bool layout_inferred = false;  ///< names and shapes left a choice, which the evidence decided
  std::vector<std::string> evidence;  ///< why: one sentence each
  std::vector<std::string> warnings;  ///< all-zero deltas, another base model's name, ...
  std::vector<std::string> targets;   ///< "q_proj x48 (rank 16)", ...
  int64_t num_tensors = 0;            ///< in the file; all of them are applied
  int64_t num_parameters = 0;
  size_t bytes_in_file = 0;
  size_t bytes_resident = 0;  ///< after de-duplication, BF16
  int32_t num_factors = 0;    ///< matrices A and B per adapted matrix of the model
  int32_t num_distinct_factors = 0;
  int32_t min_rank = 0;
  int32_t max_rank = 0;
};

}  // namespace braid

#pragma once

#include <cstdint>

namespace braid::kernels {

// Integers that the sort of the routing kernel keeps, in shared memory for decode batches and in
// the workspace for larger ones. See RoutingScratch for what they are.
constexpr int64_t routing_scratch_ints(int32_t num_pairs, int32_t num_tokens, int32_t max_rows,
                                       int32_t num_keys, int32_t num_slots) {
  return 2 * int64_t{num_pairs} + 3 * num_tokens + 2 * max_rows + (max_rows / 8 + 1) +
         4 * num_keys + num_slots + 2;
}

}  // namespace braid::kernels

#pragma once

#include <cstdint>

namespace braid {

// What operations on the host do to the floats that they compute.
enum class Rounding {
  kNone,  // activations stay float
  // Rounded where a GPU's kernels round, so that the two differ by the order of float sums alone:
  // to BF16 what an operation stores, logits excepted, the weights of attention, and x A^T of an
  // adapter; to e4m3 what FP8 matrices read, while adapters read what is not.
  kBf16,
};

// Columns under one scale of what FP8 matrices read, and of what experts' down projections read.
inline constexpr int32_t kXScaleBlock = 128, kHScaleBlock = 64;

}  // namespace braid

#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bf16.h"
#include "quant/weight_matrix.h"

namespace braid::cpu {

// Rows of a weight matrix times tokens, the one main loop of linear, MoE and LoRA shrink:
//
//   out[t * out_stride + r] = sum_k x[t][k] w[row_begin + r, k] for rows [row_begin, row_end)
//
// An output's bits depend on its row and its token alone. panel: panel_floats(w) floats of scratch.
void rows_times_tokens(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                       const float* const* x, int64_t num_tokens, float* out, int64_t out_stride,
                       float* panel);

// Rows of a tile, and columns between two looks at its scale: those of a scale block.
inline constexpr int64_t kTileRows = 4;
inline constexpr int64_t kBlockCols = 128;

// Scratch that rows_times_tokens needs: a tile's rows decoded, and their block scales.
inline size_t panel_floats(const WeightMatrix& w) {
  return static_cast<size_t>(kTileRows * w.cols + w.cols / kBlockCols + 1);
}

// Fetches memory into the second-level cache: a hint, harmless where nothing is mapped.
inline void prefetch(const void* data, size_t bytes) {
  for (size_t line = 0; line < bytes; line += 64) {
    __builtin_prefetch(static_cast<const uint8_t*>(data) + line, 0, 2);
  }
}

// Fetches what rows_times_tokens cannot fetch ahead of itself: the
// first tiles of a matrix with rows of `cols` elements.
void prefetch_rows(const Bf16* rows, int64_t num_rows, int64_t cols);

// The same for expand, whose rows of b_t are short and far apart.
void prefetch_expand(const Bf16* b_t, int64_t rank, int64_t out_size, int64_t begin, int64_t end);

// LoRA's expand: y[o - begin] += sum_r s[r] b_t[r, o] for outputs [begin, end) of b_t
// [rank, out_size]. Each output's sum runs over r in order.
void expand(const float* s, const Bf16* b_t, int64_t rank, int64_t out_size, int64_t begin,
            int64_t end, float* y);

}  // namespace braid::cpu

#pragma once

#include <cstdint>

#include "kernels/common/tiles.h"
#include "kernels/moe_gemm/nvfp4_layout.h"
#include "quant/weight_matrix.h"

// Byte layouts that packing, routing and the GEMM kernels agree on.
namespace braid::kernels {

// Weights lie as 128 rows at a time, in pieces of some columns, one behind the other; behind all of
// them come scales.
//
//   FP8    128 columns: a tile of 128-byte rows (tiles.h); behind them two scales for each
//   BF16    64 columns: the same tile, no scales
//   NVFP4  128 columns: a block (nvfp4_layout.h); behind them the global scales of rows 0..7 and of
//          rows 8..15 of each 16, times kNvfp4Unit, twice
constexpr int32_t weight_columns_bytes(WeightFormat format, int32_t columns) {
  return format == WeightFormat::kNvfp4  ? columns / 128 * kNvfp4BlockBytes
         : format == WeightFormat::kBf16 ? columns / 64 * kWeightTileBytes
                                         : columns / 128 * kWeightTileBytes;
}
constexpr int32_t scales_behind_bytes(WeightFormat format, int32_t columns) {
  return format == WeightFormat::kNvfp4  ? 16
         : format == WeightFormat::kBf16 ? 0
                                         : weight_scale_bytes(columns / 128);
}
// The next 128 rows begin at a multiple of 128 bytes.
constexpr int32_t weight_rows_bytes(WeightFormat format, int32_t columns) {
  return weight_columns_bytes(format, columns) +
         (scales_behind_bytes(format, columns) + 127) / 128 * 128;
}

// Activations of one token tile: for each 128 of depth the scales [scales_per_row, n], padded to
// 128 bytes, then n rows of 128 e4m3 bytes, swizzled; n is the number of tokens rounded up to 8.
// Tiles follow each other in the order of their first rows, which are multiples of 8.
struct ActivationImage {
  int64_t begin;        // of the tile
  int32_t depth_bytes;  // of one depth of 128
  int32_t scale_bytes;  // in front of the rows

  constexpr int64_t offset(int32_t k128) const { return begin + int64_t{k128} * depth_bytes; }
};
// Of one row and one depth, the scales of a tile of 8 shared out among its rows.
inline constexpr int32_t kActivationRowBytes = 128 + 16;

constexpr ActivationImage activation_image(int32_t first_row, int32_t num_tokens, int32_t depth,
                                           int32_t scales_per_row) {
  const int32_t n = (num_tokens + 7) / 8 * 8;
  const int32_t scale_bytes = (n * 4 * scales_per_row + 127) / 128 * 128;
  return {.begin = int64_t{first_row} * depth * kActivationRowBytes,
          .depth_bytes = scale_bytes + n * 128,
          .scale_bytes = scale_bytes};
}

// BF16 activations, of weights that are not FP8: a depth is 64 columns, and there are no scales.
constexpr int32_t image_columns(WeightFormat format) {
  return format == WeightFormat::kFp8Block128 ? 128 : 64;
}
constexpr int32_t image_row_bytes(WeightFormat format, int32_t columns) {
  return format == WeightFormat::kFp8Block128 ? columns / 128 * kActivationRowBytes : 2 * columns;
}
constexpr ActivationImage activation_image(WeightFormat format, int32_t first_row,
                                           int32_t num_tokens, int32_t columns,
                                           int32_t scales_per_row) {
  if (format == WeightFormat::kFp8Block128)
    return activation_image(first_row, num_tokens, columns / 128, scales_per_row);
  return {.begin = int64_t{first_row} * 2 * columns,
          .depth_bytes = (num_tokens + 7) / 8 * 8 * 128,
          .scale_bytes = 0};
}

// CTAs of a GEMM that share an SM. Decoding NVFP4 takes about as long as reading it: more warps
// hide what each waits for, as many as registers allow.
constexpr int32_t gemm_ctas_per_sm(WeightFormat format, int32_t tile_tokens, bool with_lora) {
  if (format != WeightFormat::kNvfp4 || tile_tokens > (with_lora ? 16 : 32)) return 2;
  return tile_tokens > 16 ? 3 : 4;
}

// Row r of a gate_up tile: feature and whether it is of up. Gate and up alternate every 8 rows, so
// that one thread of the accumulator holds both of a feature.
constexpr int32_t gate_up_feature(int32_t row) { return row / 16 * 8 + row % 8; }
constexpr bool gate_up_is_up(int32_t row) { return row / 8 % 2 == 1; }

// Factors: steps of 16 along the rank (expand, down shrink) or along H (gate_up shrink); a last
// step of 8 is stored as 8.
constexpr int32_t rank_steps(int32_t rank) { return (rank + 15) / 16; }
// Bytes of `rows` rows of B for one rank step: 16 or 8 columns of BF16.
constexpr int32_t step_width(int32_t rank, int32_t step) { return rank - 16 * step < 16 ? 8 : 16; }
inline constexpr int32_t kExpandStepBytes = 128 * 16 * 2;     // 128 rows of B, 16 ranks
inline constexpr int32_t kDownShrinkStepBytes = 64 * 16 * 2;  // 16 ranks of A, 64 features
// All of one adapter and expert.
constexpr int64_t expand_tile_bytes(int32_t rank) { return 128 * 2 * rank; }
constexpr int64_t down_shrink_tile_bytes(int32_t rank) { return 64 * 2 * rank; }

// Batches of so few tokens, and hidden sizes of so much, are routed by the GEMM kernels themselves.
inline constexpr int32_t kSmallBatchTokens = 8;
inline constexpr int32_t kSmallBatchHidden = 4096;

// Rows of A in a slab of the gate_up shrink, all of them `rows`.
constexpr int32_t slab_rows(int32_t rows, int32_t slab) {
  return rows - 64 * slab < 64 ? rows - 64 * slab : 64;
}

// Sums of products with A come in parts, each a row of 16 floats for every step of 16 ranks, that
// whoever reads them adds up in order. The columns of gate's and up's A are cut into kShrinkParts,
// so that many CTAs can share the work of few tokens; down's into the 64 features of each gate_up
// tile. 8 floats of padding keep rows in different banks of shared memory.
inline constexpr int32_t kShrinkParts = 4;
constexpr int32_t parts_row_floats(int32_t num_parts) { return 16 * num_parts + 8; }
inline constexpr int32_t kURowFloats = parts_row_floats(2 * kShrinkParts);  // gate, then up
constexpr int32_t v_row_floats(int32_t moe_intermediate_size) {
  return parts_row_floats(moe_intermediate_size / 64);
}

}  // namespace braid::kernels

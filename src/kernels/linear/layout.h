#pragma once

#include <cstdint>

#include "kernels/common/tiles.h"
#include "kernels/linear/linear_bf16.h"

// Byte layouts that packing and the linear kernels agree on.
namespace braid::kernels {

// Weights lie as 128 rows at a time: tiles of 128 rows by 128 bytes along the columns, and behind
// them, where they are FP8, the scales [depth, 2] of each tile's upper and lower 64 rows, whose
// slices may differ.
constexpr int32_t tile_columns(WeightFormat format) {
  return format == WeightFormat::kBf16 ? 64 : 128;
}
constexpr int32_t num_row_tiles(const LinearShape& shape) { return (shape.out() + 127) / 128; }
// Tiles along the columns.
constexpr int32_t num_depth_tiles(const LinearShape& shape) {
  const int32_t columns = tile_columns(shape.format);
  return (shape.in + columns - 1) / columns;
}
constexpr int64_t row_tile_bytes(const LinearShape& shape) {
  const int32_t depth = num_depth_tiles(shape);
  return shape.format == WeightFormat::kBf16 ? int64_t{depth} * kWeightTileBytes
                                             : weight_rows_bytes(depth);
}

// Part `part` of `num_parts` begins with this one of n.
constexpr int32_t part_begin(int32_t n, int32_t part, int32_t num_parts) {
  return n * part / num_parts;
}

// x of FP8 layers is quantised by every CTA for its own columns, if it has at most so many bytes of
// them, or for tiles of kQuantizedApartTokens and more by a kernel in front of it. For each tile
// and each 128 columns: rows of 128 bytes, swizzled, and their scales.
inline constexpr int32_t kQuantizedApartTokens = 32;
inline constexpr int32_t kMostQuantizedBytes = 40 * 1024;
constexpr int32_t x_image_bytes(int32_t tile_tokens) { return tile_tokens * (128 + 4); }
// Tokens of a tile of LinearPlan::large_batch.
inline constexpr int32_t kLinearLargeTokens = 128;
constexpr int32_t image_tile_tokens(const LinearPlan& plan) {
  return plan.large_batch ? kLinearLargeTokens : plan.tile_tokens;
}
// Tokens of a tile otherwise, at most.
inline constexpr int32_t kMaxTileTokens = 64;

// Batches of more tokens are large: FP8 layers have kernels of their own, and u comes from a kernel
// in front; in clusters, whose CTAs share the shrink of a token, from twice as many on.
inline constexpr int32_t kMostSmallBatchTokens = 256;
constexpr bool shrinks_apart(const LinearBf16Params& p, const LinearPlan& plan) {
  const int32_t most = (plan.in_cluster ? 2 : 1) * kMostSmallBatchTokens;
  return p.adapters != nullptr && (plan.large_batch || p.num_tokens > most);
}

// A of all slices is cut along its rows into fragments of 16 (a last one of 8), along the columns
// into 64 for each of which a lane reads 16 neighbouring elements of x: column 16 * q + i belongs
// to lane q of four, in the order in which four steps of mma take them.
inline constexpr int32_t kShrinkColumns = 64;
constexpr int32_t num_shrink_chunks(int32_t in) {
  return (in + kShrinkColumns - 1) / kShrinkColumns;
}
// Column of A in a chunk that stands at column j of the fragment of a step.
constexpr int32_t shrink_column(int32_t step, int32_t j) {
  return j % 8 / 2 * 16 + step * 4 + j / 8 * 2 + j % 2;
}
constexpr int64_t shrink_bytes(int32_t in, int32_t total_rank) {
  return int64_t{num_shrink_chunks(in)} * kShrinkColumns * 2 * total_rank;
}
// The warps that share the columns of each part: a warp sums up every kShrinkWarps-th chunk.
inline constexpr int32_t kShrinkWarps = 8;

// B of a slice: 16 rows at a time, in them steps of 16 ranks, a last one of 8.
constexpr int64_t expand_bytes(int32_t rows, int32_t rank) {
  return int64_t{(rows + 15) / 16 * 16} * rank * 2;
}

// Rows of B that a tile of 128 rows of W meets: those of one slice, or of two that meet in it, each
// a multiple of 64 rows but the last. In pieces of 16 rows, as B is packed.
struct SliceInTile {
  int32_t slice;
  int32_t first;  // piece of the slice
  int32_t begin;  // pieces of the tile; begin == end: there is no such slice
  int32_t end;
};
// From this piece of the tile on.
constexpr SliceInTile slice_in_tile(const LinearShape& shape, int32_t row_tile, int32_t begin) {
  int32_t slice = 0, row = 128 * row_tile + 16 * begin;
  while (slice < shape.num_slices && row >= shape.slice_out[slice]) row -= shape.slice_out[slice++];
  const int32_t pieces = slice < shape.num_slices ? (shape.slice_out[slice] - row + 15) / 16 : 0;
  return {.slice = slice,
          .first = row / 16,
          .begin = begin,
          .end = begin + pieces < 8 ? begin + pieces : 8};
}
struct TileSlices {
  SliceInTile of[2];
};
constexpr TileSlices tile_slices(const LinearShape& shape, int32_t row_tile) {
  const SliceInTile first = slice_in_tile(shape, row_tile, 0);
  return {{first, slice_in_tile(shape, row_tile, first.end)}};
}

// u of large batches, LinearWorkspace::u_octets: the place of rank 0 of 8 of a row. `octet` counts
// 8 ranks each of all slices.
constexpr int64_t u_octet_at(int32_t octet, int32_t row, int32_t max_tokens) {
  return (int64_t{octet} * max_tokens + row) * 8;
}

}  // namespace braid::kernels

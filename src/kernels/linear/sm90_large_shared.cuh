#pragma once

// y = q(x) W^T + LoRA for many tokens: shared memory and units of the GEMM. docs/kernels/linear.md,
// "Large batches".

#include <cstdint>

#include "kernels/common/pair_ring.cuh"
#include "kernels/common/tiles.h"
#include "kernels/common/token_block.cuh"
#include "kernels/linear/layout.h"

namespace braid::kernels {

template <bool kLora_>
struct LinearLargeConfig {
  static constexpr bool kLora = kLora_;
  static constexpr int kTokens = kLinearLargeTokens;
  static constexpr int kConsumerWarps = 8;                    // two warpgroups, 64 tokens each
  static constexpr int kThreads = 32 * kConsumerWarps + 128;  // and one that loads
  // 168 a thread at the start.
  static constexpr int kConsumerRegisters = 224;
  static constexpr int kLoaderRegisters = 56;
  static constexpr int kStages = 6;

  // A stage is 128 columns of 128 rows of weights, of the tokens, and the tokens' scales.
  static constexpr int kTokensAt = kWeightTileBytes;
  static constexpr int kTokenScalesAt = kTokensAt + kTokens * 128;
  static constexpr int kLoadedBytes = kWeightTileBytes + x_image_bytes(kTokens);
  static constexpr int kStageBytes = (kLoadedBytes + 1023) / 1024 * 1024;
  // Scales of weights come with the first of every 16 stages of a unit, so that all groups of which
  // one is under way and the one that is being multiplied lie in shared memory.
  static constexpr int kScaleGroup = 16;
  static constexpr int kScaleGroups = kStages + 1;

  // Or it is factors, some cells of them: u, 8 ranks of all tokens and then another 8, and B.
  static constexpr int kOctetBytes = kTokens * 16;
  static constexpr int kPieceBytes = 16 * 16 * 2;  // of B: 16 rows, 16 ranks
  static constexpr int kCellBytes = 2 * kOctetBytes + 128 / 16 * kPieceBytes;
  static constexpr int kCells = kStageBytes / kCellBytes;
};

// Neighbouring tokens of a tile that have the same adapter, and what that has for the one or two
// slices of the row tile.
struct LinearLargeSegment {
  int32_t begin;  // in the tile
  int32_t end;
  int32_t slot;
  int32_t rank[2];           // 0: nothing
  int32_t octet[2];          // of u
  const uint8_t* factor[2];  // B, of the tile's first rows
};

// 16 ranks, or 8, of one slice of a segment's adapter.
struct LinearLargeCell {
  int32_t begin;  // tokens
  int32_t end;
  int32_t first_piece;  // of B, 16 rows each
  int32_t end_piece;
  int32_t is_half;
};
template <class Config>
struct LinearLargeFactors {
  int32_t num_cells;
  int32_t is_last;  // of the unit's stages of factors
  LinearLargeCell cells[Config::kCells];
};

template <class Config>
struct alignas(1024) LinearLargeShared {
  uint8_t stages[Config::kStages][Config::kStageBytes];
  alignas(128) float2 weight_scales[Config::kScaleGroups][Config::kScaleGroup];
  alignas(16) uint8_t out[Config::kConsumerWarps][kTokenRowsBytes];
  PairRing<Config::kStages, Config::kConsumerWarps> ring;
  LinearLargeFactors<Config> factors[Config::kLora ? Config::kStages : 1];
  LinearLargeSegment segments[Config::kLora ? Config::kTokens : 1];  // of the producer's unit
};

// What the host knows of a launch.
struct LinearLargeGrid {
  int32_t num_parts;
  int32_t depth;  // tiles along the columns
  int32_t num_row_tiles;
  int32_t num_units;
};

// What a cluster does at a time: two row tiles, one a CTA, for the same tokens. Those of the same
// tokens follow each other, so that what a wave of clusters reads of x is little, and W, which all
// of them read, stays in L2.
struct LinearLargeUnit {
  int token_tile;
  int pair;  // of row tiles

  __device__ LinearLargeUnit(const LinearLargeGrid& grid, int unit) {
    const int num_pairs = (grid.num_row_tiles + 1) / 2;
    token_tile = unit / num_pairs, pair = unit - token_tile * num_pairs;
  }
  __device__ int first_row() const { return token_tile * kLinearLargeTokens; }
  // The second of a pair may not be there: then its CTA does the first once more, and stores
  // nothing.
  __device__ bool is_there(const LinearLargeGrid& grid, int rank) const {
    return 2 * pair + rank < grid.num_row_tiles;
  }
  __device__ int row_tile(const LinearLargeGrid& grid, int rank) const {
    return min(2 * pair + rank, grid.num_row_tiles - 1);
  }
};

}  // namespace braid::kernels

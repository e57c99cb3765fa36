#pragma once

// Shared memory of the GEMMs of large batches.

#include <cstdint>

#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/cluster.cuh"
#include "kernels/common/mbarrier.cuh"
#include "kernels/common/pair_ring.cuh"
#include "kernels/common/token_block.cuh"
#include "kernels/moe_gemm/large_batch.h"
#include "kernels/moe_gemm/layout.h"

namespace braid::kernels {

template <bool kGateUp_, bool kLora_>
struct LargeConfig {
  static constexpr bool kGateUp = kGateUp_;
  static constexpr bool kLora = kLora_;
  static constexpr int kConsumerWarps = 8;    // two warpgroups
  static constexpr int kLoaderThreads = 128;  // and one that loads
  static constexpr int kThreads = 32 * kConsumerWarps + kLoaderThreads;
  // 168 a thread at the start.
  static constexpr int kConsumerRegisters = 216;
  static constexpr int kLoaderRegisters = 72;
  static constexpr int kCluster = kPairCtas;
  static constexpr int kStages = 4;
  static constexpr int kScaleGroups = kGateUp ? 1 : 2;  // of activations, in 128 of depth

  // A stage is 128 columns: two tiles of weights and up to 128 tokens, or, in down, one tile and
  // 256 tokens.
  static constexpr int kStageBytes = 3 * kWeightTileBytes;
  // Of a stage: the warp that loads weights, and in gate_up all threads of the warpgroup, each once
  // its copies of tokens' rows have landed.
  static constexpr int kGatherArrivals = kGateUp ? kLoaderThreads : 0;
  static constexpr int kWeightScaleBytes = 512;  // of a tile, all of its depth
  static constexpr int kTokenScaleBytes =
      4 * (kGateUp ? kLargeHalfTokens : kLargeTileTokens * kScaleGroups);
  // Units of which something lies in shared memory: where each is one stage long, all that are
  // under way and the one that is being multiplied.
  static constexpr int kUnits = kStages + 1;

  // A stage of factors: u or v of a step of ranks of all tokens, then B of some runs; or A of down
  // of some runs alone.
  static constexpr int kRankBytes = kGateUp ? 2 * kLargeURowElements : 2 * kLargeVRowElements;
  static constexpr int kFactorsAt = kLargeTileTokens * kRankBytes;  // of B
  static constexpr int kFactors = 8;  // in a stage, those of both row tiles where a CTA has two
  static_assert(kFactorsAt + kFactors * kExpandStepBytes <= kStageBytes);
};

// The tokens of a run in a stage of factors, and which half of a step of 16 ranks there is.
struct LargeCell {
  int32_t begin;  // in the tile
  int32_t end;
  int32_t is_half;
  float scaling;  // of down's A
};
template <class Config>
struct LargeFactors {
  int32_t num_cells;
  int32_t step;
  int32_t is_last;  // of the unit's stages of this kind
  LargeCell cells[Config::kFactors];
};

// What a cluster does next: an entry of the list, and the group of four row tiles of the matrix.
//
// Of a small tile each CTA has two of the row tiles and all tokens. Of a large one, half of the
// rows: in gate_up both CTAs have both row tiles and 128 tokens each; in down, where tokens come to
// both at once, each has one and all tokens.
template <bool kGateUp>
struct alignas(16) LargeUnit {
  int32_t first_row;     // of the token tile
  int32_t num_tokens;    // 0: there is no more
  int32_t expert_group;  // expert + kUnit * group
  int32_t half_runs;     // kUnit * half + number of runs
  static constexpr int32_t kUnit = 1 << 16;
  static_assert(kUnit == kSecondHalf);

  __device__ int expert() const { return expert_group % kUnit; }
  __device__ int num_runs() const { return half_runs % kUnit; }
  __device__ bool is_small() const { return num_tokens <= kLargeHalfTokens; }
  // Row tiles of a CTA: where there are two each warpgroup has its own.
  __device__ int rows() const { return kGateUp || is_small() ? 2 : 1; }
  // The first of them.
  __device__ int row_tile(int rank) const {
    return 4 * (expert_group / kUnit) + 2 * (half_runs / kUnit) +
           (kGateUp && !is_small() ? 0 : rows() * rank);
  }
  // The first of a CTA's tokens, in the tile.
  __device__ int first_token(int rank) const {
    return kGateUp && !is_small() ? kLargeHalfTokens * rank : 0;
  }
};

template <class Config>
struct alignas(1024) LargeShared {
  uint8_t stages[Config::kStages][Config::kStageBytes];
  alignas(128) uint8_t token_scales[Config::kStages][Config::kTokenScaleBytes];
  // These two come with a unit's first stage.
  alignas(128) uint8_t weight_scales[Config::kUnits][2][Config::kWeightScaleBytes];
  LargeUnit<Config::kGateUp> unit[Config::kUnits];
  // The stage that follows those of a unit with factors, which one warp alone knows.
  uint32_t stage_after[Config::kGateUp && Config::kLora ? Config::kUnits : 1];
  alignas(16) uint8_t out[Config::kGateUp ? 1 : Config::kConsumerWarps][kTokenRowsBytes];
  MoeLargeRun runs[Config::kLora ? 32 : 1];  // of the unit that is being loaded
  LargeFactors<Config> factors[Config::kLora ? Config::kStages : 1];
  PairRing<Config::kStages, Config::kConsumerWarps, 1 + Config::kGatherArrivals> ring;
  // What the first CTA's first warp has chosen, for the others that load. It is never further ahead
  // than the ring is long.
  LargeUnit<Config::kGateUp> mail[2 * Config::kStages];
  uint64_t mail_full[2 * Config::kStages];
};

}  // namespace braid::kernels

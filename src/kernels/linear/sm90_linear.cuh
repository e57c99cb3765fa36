#pragma once

// y = q(x) W^T + LoRA. Weights are wgmma's A operand (128 rows), tokens its B operand, so that a
// few tokens cost no more than their bytes. A warpgroup loads and quantises, two multiply, each 64
// of the rows.
//
// A CTA has 128 rows of W, a tile of tokens, and one part of the columns or all. CTAs that share
// the columns form a cluster; each sends its sums to the one that adds them up, in order. In front
// of these CTAs in the grid are those that multiply with A: they do not wait for others, so that
// whoever waits for their u gets it.

#include <cstdint>

#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/cluster.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/mbarrier.cuh"
#include "kernels/linear/layout.h"

namespace braid::kernels {

// What the host knows of a launch.
struct LinearGrid {
  int32_t num_stages;
  int32_t num_x_tiles;  // as many as stages, or all of the CTA's
  int32_t num_parts;
  int32_t cluster;  // num_parts, or 1: a CTA takes the parts in turn
  int32_t depth;    // tiles along the columns
  int32_t num_token_tiles;
  // Of the rows that a CTA of the cluster finishes, 16 each; a power of two. Other warps have other
  // tokens.
  int32_t warps_across_rows;
  int32_t sums_in_ring;     // sums take the place of the ring, when all are done with it
  int32_t num_shrink_ctas;  // a multiple of the cluster
};

template <WeightFormat kWeightFormat, int kTileTokens>
struct LinearConfig {
  static constexpr bool kFp8 = kWeightFormat == WeightFormat::kFp8Block128;
  static constexpr bool kImage = kFp8 && kTileTokens >= kQuantizedApartTokens;
  static constexpr int kTokens = kTileTokens;
  static constexpr int kColumnTiles = kTokens / 8;
  static constexpr int kSums = kTokens / 2;  // of a thread: 64 rows by a warpgroup
  static constexpr int kConsumers = 256;
  static constexpr int kLoaders = 128;
  static constexpr int kThreads = kConsumers + kLoaders;
  // Two, so that the next kernel's weights find room beside this one's. Registers are moved from
  // loaders to consumers.
  static constexpr int kCtasPerSm = 2;
  static constexpr int kLoaderRegisters = 32, kConsumerRegisters = 104;
  // x is quantised by all threads before the main loop, and stays.
  static constexpr bool kQuantizes = kFp8 && !kImage;

  static constexpr int kXBytes = kTokens * 128;
  static constexpr int kXStageBytes = kXBytes + kTokens * 4;
  static constexpr int kMaxStages = 8;
  // Arrivals of a full stage: who announces the bytes of copies, and the threads that copy x.
  static constexpr int kFullArrivals = kFp8 ? 1 : 1 + kLoaders;

  static constexpr int kMostParts = 8;
  // Of a shrink, of 8 warps and of the cluster, where a CTA of the others has its ring.
  static constexpr int kShrinkSumBytes = (8 + kMostParts) * (kMaxRunRows / 8) * 512;
  // 228 kB an SM, of which the system takes 1 kB a CTA.
  static constexpr int kSharedBytes = (228 / kCtasPerSm - 1) * 1024;
};

// A run of the tile, and what its adapter has.
struct LinearTileRun {
  AdapterRun run;
  LinearAdapterSlot adapter;
};

template <class Config>
struct alignas(1024) LinearShared {
  uint64_t full[Config::kMaxStages];
  uint64_t empty[Config::kMaxStages];
  uint64_t sums_there;             // of all CTAs of the cluster
  uint64_t tag_there;              // `tag` may be read
  int32_t token[Config::kTokens];  // of the tile's rows, -1: none
  int32_t run[Config::kTokens];    // in `runs`, -1: no adapter
  int32_t num_runs;                // of the tile
  uint32_t tag;                    // of this launch's u
  LinearTileRun runs[Config::kTokens];

  // Behind it: the weights of all stages, x, and the sums, unless they take the place of these.
  __device__ __forceinline__ uint8_t* weights(int stage) {
    return reinterpret_cast<uint8_t*>(this + 1) + stage * kWeightTileBytes;
  }
  __device__ __forceinline__ uint8_t* x(const LinearGrid& grid, int i) {
    return weights(grid.num_stages) + i * Config::kXBytes;
  }
  __device__ __forceinline__ float* x_scale(const LinearGrid& grid, int i) {
    return reinterpret_cast<float*>(x(grid, grid.num_x_tiles)) + i * Config::kTokens;
  }
  __device__ __forceinline__ float4* sums(const LinearGrid& grid) {
    return reinterpret_cast<float4*>(
        grid.sums_in_ring ? weights(0)
                          : reinterpret_cast<uint8_t*>(x_scale(grid, grid.num_x_tiles)));
  }
};

// What a CTA multiplies.
struct LinearTile {
  const uint8_t* weights;  // of its 128 rows
  int row;                 // the first of W
  int token_tile;
  int num_columns;     // tokens, 8 at a time
  int rank;            // in the cluster
  int first_k, end_k;  // tiles along the columns
};

// Of a tile's 8 times 16 rows, those that CTA `rank` of the cluster finishes: rank, rank + cluster,
// ..
__host__ __device__ __forceinline__ int rows_of_share(const LinearGrid& grid, int rank) {
  return (7 - rank) / grid.cluster + 1;
}

// A unit of the shrink is a run and every shrink_groups()-th 16 rows of A.
inline constexpr int kMostShrinkGroups = 4;
__device__ __forceinline__ int shrink_groups(const LinearBf16Params& p) {
  const int rows = p.shape.num_slices * ((*p.order.max_rank + 7) / 8 * 8);
  return max(1, min(kMostShrinkGroups, (rows + 15) / 16));
}

// CTAs that have units: the others leave at once, for the next kernel's.
__device__ __forceinline__ int busy_shrink_ctas(const LinearBf16Params& p, const LinearGrid& grid) {
  if (grid.num_shrink_ctas == 0) return 0;
  return min(grid.num_shrink_ctas, *p.order.num_runs * shrink_groups(p) * grid.cluster);
}

// A place in the ring.
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void advance(int num_stages) {
    if (++stage == num_stages) stage = 0, parity ^= 1;
  }
};

__device__ __forceinline__ int total_rank(const LinearAdapterSlot& slot) {
  return slot.rank[0] + slot.rank[1] + slot.rank[2];
}

// Threads of the consumers meet.
__device__ __forceinline__ void linear_consumer_barrier() {
  asm volatile("bar.sync 1, 256;" ::: "memory");
}

}  // namespace braid::kernels

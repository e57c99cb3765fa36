#pragma once

// v = h A^T of large batches from the parts that gate_up has left, as BF16, in the order in which
// down reads it: by the warps of down that load nothing, ahead of the units that need it.

#include <cstdint>

#include "kernels/common/counter.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/moe_gemm/large_lora.cuh"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {

// A warp takes so many rows of a tile at a time, and then says so.
inline constexpr int kVRows = 32;
inline constexpr int kVPieces = kLargeTileTokens / kVRows;

// Counts that v of kVRows rows from this one on is there; the rows of tiles begin at multiples
// of 8.
__device__ __forceinline__ int32_t* large_v_ready(const MoeLayerParams& p, int row) {
  return p.workspace.h_ready + row / 8;
}

// The rank of down's factors of a lane's row, `row` in the tile; 0 where it has no adapter.
__device__ __forceinline__ int rank_of_row(const MoeLargeRun* runs, int num_runs, int row,
                                           int lane) {
  int rank = 0;
#pragma unroll 1
  for (int first = 0; first < num_runs; first += 32) {
    int begin = 0, end = 0, of_run = 0;
    if (first + lane < num_runs) {
      const MoeLargeRun& run = runs[first + lane];
      begin = __ldcg(&run.begin), end = __ldcg(&run.end), of_run = __ldcg(&run.rank_down);
    }
#pragma unroll 1
    for (int i = 0; i < min(32, num_runs - first); ++i) {
      const int from = __shfl_sync(kAllLanes, begin, i), to = __shfl_sync(kAllLanes, end, i);
      const int rank_of_run = __shfl_sync(kAllLanes, of_run, i);
      if (row >= from && row < to) rank = rank_of_run;
    }
  }
  return rank;
}

// What the warp `warp` of `num_warps` has to do of all tiles, in the order of the list.
__device__ __forceinline__ void add_up_large_v(const MoeLayerParams& p, int warp, int num_warps,
                                               int lane) {
  const int num_pieces = __ldcg(&p.workspace.counts->num_other_tiles) * kVPieces;
  const int num_parts = p.sizes.moe_intermediate_size / 64, c = lane % 4;
#pragma unroll 1
  for (int i = warp; i < num_pieces; i += num_warps) {
    const MoeTokenTile tile = load_large_entry(p.workspace.other_tiles + i / kVPieces);
    const int begin = i % kVPieces * kVRows;
    // Of the two entries of a large tile the first.
    if (tile.num_runs == 0 || tile.num_runs >= kSecondHalf || begin >= tile.num_tokens) continue;
    const int rank =
        rank_of_row(p.workspace.large_runs + tile.first_row, tile.num_runs, begin + lane, lane);
#pragma unroll 1
    for (int first = 0; first < kVRows; first += 8) {
      const int row = tile.first_row + begin + first + lane / 4;
      const int rank_of = __shfl_sync(kAllLanes, rank, first + lane / 4);
      for (int step = 0; 16 * step < rank_of; ++step) {
        // A lane has four ranks.
        const float* from = large_v_part(p, step, row, 0) + 2 * c;
        float2 low = {}, high = {};
#pragma unroll 4
        for (int k = 0; k < num_parts; ++k, from += 16) {
          const float2 a = __ldcg(reinterpret_cast<const float2*>(from));
          const float2 b = __ldcg(reinterpret_cast<const float2*>(from + 8));
          low.x += a.x, low.y += a.y, high.x += b.x, high.y += b.y;
        }
        *(reinterpret_cast<uint2*>(large_v_of(p, step, row)) + c) =
            make_uint2(pack_bf16(low.x, low.y), pack_bf16(high.x, high.y));
      }
    }
    __syncwarp();
    if (lane == 0) count_release(large_v_ready(p, tile.first_row + begin));
  }
}

// Returns when v of the tile's rows is there, for bulk copies of this warp.
__device__ __forceinline__ void wait_for_large_v(const MoeLayerParams& p, int first_row,
                                                 int num_tokens, int lane) {
  if (lane < (num_tokens + kVRows - 1) / kVRows) {
    while (load_acquire(large_v_ready(p, first_row + lane * kVRows)) == 0) {
    }
  }
  __syncwarp();
  fence_proxy_async_global();
}

}  // namespace braid::kernels

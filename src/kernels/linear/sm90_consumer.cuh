#pragma once

// The warpgroups of the linear kernel that multiply, add the adapters' part, and store.

#include <cuda_bf16.h>

#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/common/tagged_word.cuh"
#include "kernels/common/wgmma.cuh"
#include "kernels/linear/sm90_linear.cuh"

namespace braid::kernels {

// One lane's part of a packed fragment; the half form has 8 rows (kHalfOf = 1) or 8 columns
// (kHalfOf = 2) and half the bytes.
template <int kHalfOf>
__device__ __forceinline__ uint4 load_factor(const uint8_t* fragment, int lane, bool whole) {
  if (whole) return __ldg(reinterpret_cast<const uint4*>(fragment) + lane);
  const uint2 half = __ldg(reinterpret_cast<const uint2*>(fragment) + lane);
  if constexpr (kHalfOf == 1) return make_uint4(half.x, 0, half.y, 0);
  return make_uint4(half.x, half.y, 0, 0);
}

__device__ __forceinline__ void add_to(float (&d)[4], float4 x) {
  d[0] += x.x, d[1] += x.y, d[2] += x.z, d[3] += x.w;
}

template <class Config>
class LinearConsumer {
 public:
  static constexpr int kColumnTiles = Config::kColumnTiles;
  // Pieces that a warp finishes at once, where it has more than one: what the registers have room
  // for.
  static constexpr int kMostPieces = kColumnTiles < 4 ? 1 : 4;

  __device__ LinearConsumer(const LinearBf16Params& p, const LinearGrid& grid,
                            LinearShared<Config>& shared, const LinearTile& tile, int warp,
                            int lane)
      : p_(p), grid_(grid), shared_(shared), tile_(tile), warp_(warp), lane_(lane) {
    // 16 rows a warp; where there are more warps, they share the tokens.
    const int group = warp / grid.warps_across_rows, num_groups = 8 / grid.warps_across_rows;
    in_share_ = warp % grid.warps_across_rows;
    row_ = tile.row + 16 * (in_share_ * grid.cluster + tile.rank);
    const int num_pieces = (tile.num_columns + num_groups - 1) / num_groups;
    first_piece_ = group * num_pieces;
    end_piece_ = min(first_piece_ + num_pieces, tile.num_columns);
    if (in_share_ >= rows_of_share(grid, tile.rank) || row_ >= p.shape.out())
      end_piece_ = first_piece_;
  }

  // Before the previous kernel has finished.
  __device__ __forceinline__ void prefetch() {
    if constexpr (Config::kFp8) load_w_scales(tile_.first_k);
    if (takes_one_piece()) find_first_cells(first_piece_, first_cells_);
  }

  __device__ __forceinline__ void run() {
    float4* const sums = shared_.sums(grid_) + lane_;
    multiply(sums);
    finish(sums);
  }

 private:
  // At a time.
  __device__ __forceinline__ bool takes_one_piece() const {
    return kMostPieces == 1 || end_piece_ - first_piece_ <= 1;
  }

  // Leaves the sums in pieces of 16 rows (of warp w those from 16 w on) by 8 tokens, with the CTAs
  // of the cluster that finish them. A CTA alone adds up its parts.
  __device__ __forceinline__ void multiply(float4* sums) {
    RingPlace place;
    const int first_part = grid_.cluster > 1 ? tile_.rank : 0,
              end_part = grid_.cluster > 1 ? tile_.rank + 1 : grid_.num_parts;
    const int owner = warp_ % grid_.cluster, in_share = warp_ / grid_.cluster;
#pragma unroll 1
    for (int part = first_part; part < end_part; ++part) {
      const int first_k = part_begin(grid_.depth, part, grid_.num_parts),
                end_k = part_begin(grid_.depth, part + 1, grid_.num_parts);
      float sum[Config::kSums];
      if constexpr (Config::kFp8) {
        multiply_fp8(first_k, end_k, place, sum);
      } else {
        multiply_bf16(first_k, end_k, place, sum);
      }
      if (grid_.sums_in_ring) {
        linear_consumer_barrier();
        if (grid_.cluster > 1) cluster_barrier_relaxed();
      }
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        if (j >= tile_.num_columns) break;
        float piece[4] = {};
        if (grid_.cluster == 1 && part > 0) add_to(piece, sums[32 * (8 * j + warp_)]);
        add_to(piece, make_float4(sum[4 * j], sum[4 * j + 1], sum[4 * j + 2], sum[4 * j + 3]));
        const float4 v = make_float4(piece[0], piece[1], piece[2], piece[3]);
        if (grid_.cluster == 1) {
          sums[32 * (8 * j + warp_)] = v;
        } else {
          const int number = j * rows_of_share(grid_, owner) + in_share;
          store_to_cta(sums + 32 * (number * grid_.cluster + tile_.rank), v, &shared_.sums_there,
                       owner);
        }
      }
    }
    __syncwarp();
  }

  // The warp's share of the CTA's share.
  __device__ __forceinline__ void finish(const float4* sums) {
    if (takes_one_piece()) {
      finish_pieces<1>(sums);
    } else {
      finish_pieces<kMostPieces>(sums);
    }
  }

  // kPieces at once.
  template <int kPieces>
  __device__ __forceinline__ void finish_pieces(const float4* sums) {
    const int num_rows = rows_of_share(grid_, tile_.rank);
    Cells<kPieces> cells;
    if constexpr (kPieces == 1) cells = first_cells_;
#pragma unroll 1
    for (int j0 = first_piece_; j0 < end_piece_; j0 += kPieces) {
      if (kPieces > 1 || j0 > first_piece_) find_first_cells(j0, cells);
      float delta[kPieces][4] = {};
      if (p_.adapters != nullptr) expand(cells, 8 * j0, delta);
      if (grid_.cluster > 1) mbarrier_wait(&shared_.sums_there, 0);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int j = j0 + i;
        if (j >= end_piece_) break;
        float d[4] = {};
        const float4* const parts = sums + 32 * (j * num_rows + in_share_) * grid_.cluster;
#pragma unroll 4
        for (int cta = 0; cta < grid_.cluster; ++cta) add_to(d, parts[32 * cta]);
        if (p_.adapters != nullptr)
          add_to(d, make_float4(delta[i][0], delta[i][1], delta[i][2], delta[i][3]));
        store(8 * j, d);
      }
    }
    // A warp of no rows or tokens. Shared memory stays until all that is sent there has come.
    if (grid_.cluster > 1 && first_piece_ >= end_piece_) mbarrier_wait(&shared_.sums_there, 0);
  }

  // Of this warp's half of 32 tiles along the columns, one a lane.
  __device__ __forceinline__ void load_w_scales(int first_k) {
    const float* const scales =
        reinterpret_cast<const float*>(tile_.weights + int64_t{grid_.depth} * kWeightTileBytes);
    w_scale_ = __ldg(scales + 2 * min(first_k + lane_, grid_.depth - 1) + warp_ / 4);
  }

  __device__ __forceinline__ uint64_t rows_descriptor(int stage) const {
    return wgmma_descriptor(shared_.weights(stage)) + warp_ / 4 * kWgmmaStep64Rows;
  }

  __device__ __forceinline__ void wait_full(const RingPlace& place) const {
    mbarrier_wait(&shared_.full[place.stage], place.parity);
    // The loaders' x has to be seen by the tensor cores' way to memory.
    if constexpr (!Config::kFp8) fence_proxy_async_shared();
    wgmma_fence();
  }

  __device__ __forceinline__ void release(RingPlace& place) {
    // Reads of scales may still be under way: an arrival does not wait for them, and the copy that
    // fills the stage again would overtake them.
    if constexpr (Config::kImage) fence_proxy_async_shared();
    __syncwarp();
    if (lane_ == 0) mbarrier_arrive(&shared_.empty[place.stage]);
    place.advance(grid_.num_stages);
  }

  // In float for each 128 columns: the FP8 tensor accumulator keeps too few bits for a longer sum.
  __device__ __forceinline__ void multiply_fp8(int first_k, int end_k, RingPlace& place,
                                               float (&sum)[Config::kSums]) {
#pragma unroll
    for (float& x : sum) x = 0.0f;
#pragma unroll 1
    for (int k = first_k; k < end_k; ++k) {
      const int in_lanes = (k - tile_.first_k) % 32;
      if (in_lanes == 0 && k > tile_.first_k) load_w_scales(k);
      const float w_scale = __shfl_sync(~0u, w_scale_, in_lanes);
      wait_full(place);
      const int x_tile = Config::kQuantizes ? k - tile_.first_k : place.stage;
      const uint64_t a = rows_descriptor(place.stage),
                     b = wgmma_descriptor(shared_.x(grid_, x_tile));
      const float* const x_scale = shared_.x_scale(grid_, x_tile) + 2 * (lane_ % 4);
      float part[Config::kSums];
#pragma unroll
      for (int s = 0; s < 4; ++s)
        wgmma_m64k32(part, a + s * kWgmmaStep32Bytes, b + s * kWgmmaStep32Bytes, s > 0);
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        const float2 x = *reinterpret_cast<const float2*>(x_scale + 8 * j);
        const float scale[2] = {w_scale * x.x, w_scale * x.y};
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[4 * j + i] += part[4 * j + i] * scale[i % 2];
      }
      release(place);
    }
  }

  __device__ __forceinline__ void multiply_bf16(int first_k, int end_k, RingPlace& place,
                                                float (&sum)[Config::kSums]) {
#pragma unroll 1
    for (int k = first_k; k < end_k; ++k) {
      wait_full(place);
      const uint64_t a = rows_descriptor(place.stage),
                     b = wgmma_descriptor(shared_.x(grid_, place.stage));
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        wgmma_m64k16(sum, a + s * kWgmmaStep32Bytes, b + s * kWgmmaStep32Bytes,
                     k > first_k || s > 0);
      }
      wgmma_commit();
      wgmma_wait<0>();
      release(place);
    }
  }

  // Some of the cells that the warp's rows have for kPieces pieces: 16 ranks of one adapter's B
  // each, and the tokens that have it.
  template <int kPieces>
  struct Cells {
    static constexpr int kCells = kPieces > 1 ? 1 : kColumnTiles < 8 ? 4 : 2;
    uint4 factor[kCells];
    int from[kCells];                // rank of u
    int begin[kCells], end[kCells];  // in the tile; equal where there are no more cells
    bool whole[kCells];              // or half of one
    // Of the adapter at hand: its ranks, the next of them, its tokens, a run and the one behind its
    // last.
    int rank, next_rank, adapter_begin, adapter_end, run, end_run;
  };

  // Of the pieces from j0 on.
  template <int kPieces>
  __device__ __forceinline__ void find_first_cells(int j0, Cells<kPieces>& cells) const {
    // Tokens without adapter are behind the others.
    cells.end_run = p_.adapters != nullptr && j0 < end_piece_ ? shared_.run[8 * j0] : -1;
    cells.rank = cells.next_rank = 0;
#pragma unroll
    for (int c = 0; c < Cells<kPieces>::kCells; ++c) cells.begin[c] = cells.end[c] = 0;
    if (cells.end_run >= 0) find_cells(8 * j0, cells);
  }

  template <int kPieces>
  __device__ __forceinline__ void find_cells(int column, Cells<kPieces>& cells) const {
    const int row0 = tile_.token_tile * Config::kTokens;
    // Of the warp's own tokens, which may be fewer than kPieces have.
    const int end_column = kPieces == 1 ? column + 8 : 8 * min(column / 8 + kPieces, end_piece_);
    int slice = 0, in_slice = row_;
    while (in_slice >= p_.shape.slice_out[slice]) in_slice -= p_.shape.slice_out[slice++];
#pragma unroll
    for (int c = 0; c < Cells<kPieces>::kCells; ++c) {
      while (cells.next_rank >= cells.rank && cells.end_run < shared_.num_runs) {
        const LinearTileRun& r = shared_.runs[cells.end_run];
        cells.run = cells.end_run;
        cells.adapter_begin = r.run.first_row - row0;
        cells.rank = cells.adapter_begin < end_column ? r.adapter.rank[slice] : 0;
        cells.next_rank = 0;
        int end = cells.adapter_begin;
        do {
          end += shared_.runs[cells.end_run].run.num_rows;
        } while (++cells.end_run < shared_.num_runs &&
                 shared_.runs[cells.end_run].run.slot == r.run.slot);
        cells.adapter_end = end;
      }
      const bool there = cells.next_rank < cells.rank;
      cells.begin[c] = there ? cells.adapter_begin : 0;
      cells.end[c] = there ? cells.adapter_end : 0;
      cells.whole[c] = cells.next_rank + 16 <= cells.rank;
      if (there) {
        const LinearAdapterSlot& adapter = shared_.runs[cells.run].adapter;
        const int* const rank = adapter.rank;
        cells.from[c] = cells.next_rank + (slice > 0 ? rank[0] : 0) + (slice > 1 ? rank[1] : 0);
        const uint8_t* const b =
            adapter.expand[slice] + (in_slice / 16 * cells.rank + cells.next_rank) * 32;
        cells.factor[c] = load_factor<2>(b, lane_, cells.whole[c]);
      }
      cells.next_rank += 16;
    }
  }

  // delta[i] = B u of the 8 tokens from column + 8 i on: tokens that are not a cell's own count as
  // zero. The delta is summed by itself, so that its bits do not depend on the sums.
  template <int kPieces>
  __device__ __forceinline__ void expand(Cells<kPieces>& cells, int column,
                                         float (&delta)[kPieces][4]) {
    constexpr int kCells = Cells<kPieces>::kCells;
    const int lane_row = column + lane_ / 4, u_stride = p_.workspace.max_total_rank / 2;
    const uint64_t* const u = p_.workspace.u +
                              int64_t{tile_.token_tile * Config::kTokens + lane_row} * u_stride +
                              lane_ % 4;
    mbarrier_wait(&shared_.tag_there, 0);
    const uint32_t tag = shared_.tag;
#pragma unroll 1
    while (cells.begin[0] < cells.end[0]) {
      // Until all of it has come from the CTAs that shrink.
      uint2 pairs[kCells][kPieces];
      bool there;
      do {
        there = true;
#pragma unroll
        for (int c = 0; c < kCells; ++c) {
#pragma unroll
          for (int i = 0; i < kPieces; ++i) {
            const int at = lane_row + 8 * i;
            const uint64_t* const two = u + (8 * i * u_stride + cells.from[c] / 2);
            const bool mine = at >= cells.begin[c] && at < cells.end[c];
            const uint64_t none = static_cast<uint64_t>(tag) << 32;
            const uint64_t low = mine ? load_tagged(two) : none,
                           high = mine && cells.whole[c] ? load_tagged(two + 4) : none;
            there = there && low >> 32 == tag && high >> 32 == tag;
            pairs[c][i] = make_uint2(static_cast<uint32_t>(low), static_cast<uint32_t>(high));
          }
        }
      } while (!__all_sync(~0u, there));
#pragma unroll
      for (int c = 0; c < kCells; ++c) {
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          const int first = column + 8 * i;
          if (first < cells.end[c] && first + 8 > cells.begin[c])
            mma_m16n8k16(delta[i], cells.factor[c], pairs[c][i].x, pairs[c][i].y);
        }
      }
      if (cells.begin[kCells - 1] == cells.end[kCells - 1]) break;
      find_cells(column, cells);
    }
  }

  __device__ __forceinline__ void store(int column, const float (&d)[4]) {
    const int row = row_, q = 2 * (lane_ % 4);
    const bool lower = row + 8 < p_.shape.out();
    if (p_.y != nullptr) {
      // A lane's pair of tokens becomes a pair of rows.
      const uint32_t upper_rows = transpose_8x8(pack_bf16(d[0], d[1])),
                     lower_rows = transpose_8x8(pack_bf16(d[2], d[3]));
      const int token = shared_.token[column + lane_ / 4];
      if (token < 0) return;
      auto* const y = reinterpret_cast<uint32_t*>(p_.y + token * p_.y_stride + row + q);
      y[0] = upper_rows;
      if (lower) y[4] = lower_rows;
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int token = shared_.token[column + q + i];
        if (token < 0) continue;
        float* const y = p_.y_float + token * p_.y_stride + row + lane_ / 4;
        y[0] = d[i];
        if (lower) y[8] = d[2 + i];
      }
    }
  }

  const LinearBf16Params& p_;
  const LinearGrid& grid_;
  LinearShared<Config>& shared_;
  const LinearTile& tile_;
  int warp_, lane_;
  int in_share_, row_;           // of 16
  int first_piece_, end_piece_;  // of 8 tokens
  Cells<1> first_cells_;         // where a warp takes one piece at a time
  float w_scale_ = 0.0f;
};

}  // namespace braid::kernels

#pragma once

// u = s * x A^T by runs, in the CTAs in front of the linear kernel's grid. A's fragments and x go
// straight from memory to registers; warps share the columns of each part.

#include <cuda_bf16.h>

#include "kernels/common/counter.cuh"
#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/linear/sm90_consumer.cuh"
#include "kernels/linear/sm90_linear.cuh"

namespace braid::kernels {

// Work is handed out by a run and every kSlabGroups-th slab of A.
inline constexpr int kSlabGroups = 2;

template <class Config>
class LinearShrink {
 public:
  __device__ LinearShrink(const LinearBf16Params& p, const LinearGrid& grid,
                          LinearShared<Config>& shared, int warp, int lane)
      : p_(p),
        grid_(grid),
        shared_(shared),
        warp_(warp),
        lane_(lane),
        rank_in_cluster_(blockIdx.x % grid.cluster) {}

  // By the consumers. Indices and A are read before the previous kernel has finished.
  __device__ __forceinline__ void run() {
    const int num_runs = *p_.order.num_runs;
#pragma unroll 1
    for (int unit = blockIdx.x / grid_.cluster; unit < num_runs * kSlabGroups;
         unit += grid_.num_shrink_ctas / grid_.cluster) {
      const int group = unit / num_runs, run_index = unit - group * num_runs;
      const AdapterRun run = p_.order.runs[run_index];
      const LinearAdapterSlot& slot = p_.adapters[run.slot];
      int32_t* const ready = p_.workspace.run_ready + run_index;
#pragma unroll 1
      for (int slab = group; slab * kSlabRows < total_rank(slot); slab += kSlabGroups) {
        if (run.num_rows <= 8) {
          multiply<1>(run, slot, slab, ready);
        } else {
          multiply<kMaxRunRows / 8>(run, slot, slab, ready);
        }
      }
    }
    wait_for_previous_kernel();
  }

 private:
  static constexpr int kWarps = Config::kConsumers / 32, kTiles = kSlabRows / 16;

  // One slab, and a run of kColumnTiles * 8 rows at most.
  template <int kColumnTiles>
  __device__ __forceinline__ void multiply(const AdapterRun& run, const LinearAdapterSlot& slot,
                                           int slab, int32_t* ready) {
    constexpr int kPieces = kTiles * kColumnTiles;
    static_assert(kPieces <= kWarps);
    const int num_parts = grid_.num_parts, num_chunks = num_shrink_chunks(p_.shape.in);
    const int first_part = grid_.cluster > 1 ? rank_in_cluster_ : 0,
              end_part = grid_.cluster > 1 ? rank_in_cluster_ + 1 : num_parts;
    const int rank = slab * kSlabRows + warp_ / kColumnTiles * 16, column = warp_ % kColumnTiles;
    // This warp adds up a piece over all warps, if there is something in it.
    const bool adds = warp_ < kPieces && rank < total_rank(slot) && 8 * column < run.num_rows;
    float4* const of_warps = reinterpret_cast<float4*>(shared_.weights(0)) + lane_;
    float4* const of_ctas = of_warps + kWarps * kPieces * 32;
    float total[4] = {};
#pragma unroll 1
    for (int part = first_part; part < end_part; ++part) {
      float d[kTiles][kColumnTiles][4] = {};
      add_chunks(run, slot, slab, part_begin(num_chunks, part, num_parts),
                 part_begin(num_chunks, part + 1, num_parts), d);
      linear_consumer_barrier();  // what lay there has been read
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          of_warps[(warp_ * kPieces + m * kColumnTiles + j) * 32] =
              make_float4(d[m][j][0], d[m][j][1], d[m][j][2], d[m][j][3]);
        }
      }
      linear_consumer_barrier();
      if (!adds) continue;
      float sum[4] = {};
#pragma unroll
      for (int w = 0; w < kWarps; ++w) add_to(sum, of_warps[(w * kPieces + warp_) * 32]);
#pragma unroll
      for (int i = 0; i < 4; ++i) total[i] += sum[i];
    }
    if (grid_.cluster > 1) {
      // The first CTA has read what was sent to it before.
      if (num_sent_++ > 0) cluster_barrier_relaxed();
      if (rank_in_cluster_ == 0 && threadIdx.x == 0)
        mbarrier_arrive_expect(&shared_.sums_there, grid_.cluster * kPieces * 512);
      if (warp_ < kPieces) {
        float4* const mine = of_ctas + warp_ * kMostCluster * 32;
        store_to_cta(mine + rank_in_cluster_ * 32,
                     make_float4(total[0], total[1], total[2], total[3]), &shared_.sums_there, 0);
        if (rank_in_cluster_ > 0) return;
        mbarrier_wait(&shared_.sums_there, (num_sent_ - 1) % 2);
#pragma unroll
        for (float& x : total) x = 0.0f;
#pragma unroll 1
        for (int cta = 0; cta < grid_.cluster; ++cta) add_to(total, mine[32 * cta]);
      }
    }
    if (!adds || rank_in_cluster_ > 0) return;
    store(run, slot, rank, column, total);
    __syncwarp();
    if (lane_ == 0) count_release(ready);
  }

  static constexpr int kMostCluster = Config::kMostParts;

  // d += A x over every kWarps-th chunk of columns.
  template <int kColumnTiles>
  __device__ __forceinline__ void add_chunks(const AdapterRun& run, const LinearAdapterSlot& slot,
                                             int slab, int first_chunk, int end_chunk,
                                             float (&d)[kTiles][kColumnTiles][4]) {
    const int q = lane_ % 4, num_chunks = num_shrink_chunks(p_.shape.in);
    const int num_ranks = total_rank(slot) - slab * kSlabRows;  // of this slab and behind
    const uint8_t* const a =
        slot.shrink + int64_t{num_chunks} * (kShrinkColumns * 2) * (slab * kSlabRows);
    int token[kColumnTiles];
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      const int row = 8 * j + lane_ / 4;
      token[j] = row < run.num_rows ? p_.order.token_of_row[run.first_row + row] : -1;
    }
#pragma unroll 1
    for (int chunk = first_chunk + warp_; chunk < end_chunk; chunk += kWarps) {
      uint4 factor[kTiles][4];
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        const int ranks = min(16, num_ranks - 16 * m);
        const uint8_t* fragment =
            a + int64_t{num_chunks} * (kShrinkColumns * 2 * 16 * m) + chunk * (128 * ranks);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          factor[m][s] = make_uint4(0, 0, 0, 0);
          if (ranks > 0) factor[m][s] = load_factor<1>(fragment, lane_, ranks == 16);
          fragment += 32 * ranks;
        }
      }
      wait_for_previous_kernel();
      const int column = chunk * kShrinkColumns + 16 * q;
      uint4 x[kColumnTiles][2];
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        const bool there = token[j] >= 0 && column < p_.shape.in;
        const auto* const from =
            reinterpret_cast<const uint4*>(p_.x + (there ? token[j] * p_.x_stride + column : 0));
#pragma unroll
        for (int i = 0; i < 2; ++i) x[j][i] = there ? from[i] : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
#pragma unroll
        for (int s = 0; s < 4; ++s) {
#pragma unroll
          for (int j = 0; j < kColumnTiles; ++j) {
            const uint4 four = x[j][s / 2];
            mma_m16n8k16(d[m][j], factor[m][s], s % 2 == 0 ? four.x : four.z,
                         s % 2 == 0 ? four.y : four.w);
          }
        }
      }
    }
  }

  // 16 ranks from `rank` on and 8 tokens of the run.
  __device__ __forceinline__ void store(const AdapterRun& run, const LinearAdapterSlot& slot,
                                        int rank, int column_tile, const float (&d)[4]) {
    const int all_ranks = total_rank(slot);
    // Eight ranks are of one slice.
    const auto scaling_of = [&](int r) {
      const int slice = r < slot.rank[0] ? 0 : r < slot.rank[0] + slot.rank[1] ? 1 : 2;
      return slot.scaling[slice];
    };
    const float upper = scaling_of(rank), lower = scaling_of(min(rank + 8, all_ranks - 8));
    // A lane's pair of tokens becomes a pair of ranks.
    const uint32_t upper_ranks = transpose_8x8(pack_bf16(d[0] * upper, d[1] * upper)),
                   lower_ranks = transpose_8x8(pack_bf16(d[2] * lower, d[3] * lower));
    const int row = 8 * column_tile + lane_ / 4;
    if (row >= run.num_rows) return;
    auto* const u = reinterpret_cast<uint32_t*>(
        p_.workspace.u + int64_t{run.first_row + row} * p_.workspace.max_total_rank + rank +
        2 * (lane_ % 4));
    u[0] = upper_ranks;
    if (rank + 8 < all_ranks) u[4] = lower_ranks;
  }

  const LinearBf16Params& p_;
  const LinearGrid& grid_;
  LinearShared<Config>& shared_;
  int warp_, lane_;
  int rank_in_cluster_;
  int num_sent_ = 0;
};

}  // namespace braid::kernels

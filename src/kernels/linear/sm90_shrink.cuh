#pragma once

// u = s * x A^T by runs, in the CTAs in front of the linear kernel's grid. A's fragments and x go
// straight from memory to registers; eight warps share the columns of each part.

#include <cuda_bf16.h>

#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/linear/sm90_consumer.cuh"

namespace braid::kernels {

// Rows 16 t and following of an adapter's A: 16 of them, the last ones may be 8.
struct FactorTile {
  const uint8_t* a;
  int ranks;

  __device__ FactorTile(const LinearAdapterSlot& slot, int num_chunks, int t)
      : a(slot.shrink + int64_t{num_chunks} * (kShrinkColumns * 2 * 16) * t),
        ranks(min(16, total_rank(slot) - 16 * t)) {}
};

// A lane's part of a chunk of columns: of A, and of 8 tokens a column tile.
template <int kColumnTiles>
struct ShrinkChunk {
  uint4 a[4];
  uint4 x[kColumnTiles][2];

  // Zeros for a chunk that is not there.
  __device__ __forceinline__ void load_factors(const FactorTile& tile, int chunk, int end_chunk,
                                               int lane) {
    const uint8_t* const fragments = tile.a + chunk * (128 * tile.ranks);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      a[s] = make_uint4(0, 0, 0, 0);
      if (chunk < end_chunk)
        a[s] = load_factor<1>(fragments + 32 * tile.ranks * s, lane, tile.ranks == 16);
    }
  }

  // token[j]: the lane's of column tile j, -1 for none.
  __device__ __forceinline__ void load_x(const LinearBf16Params& p,
                                         const int (&token)[kColumnTiles], int chunk, int end_chunk,
                                         int lane) {
    const int column = chunk * kShrinkColumns + 16 * (lane % 4);
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      const bool there = chunk < end_chunk && token[j] >= 0 && column < p.shape.in;
      const auto* const from =
          reinterpret_cast<const uint4*>(p.x + (there ? token[j] * p.x_stride + column : 0));
#pragma unroll
      for (int i = 0; i < 2; ++i) x[j][i] = there ? from[i] : make_uint4(0, 0, 0, 0);
    }
  }

  // d += A x.
  __device__ __forceinline__ void multiply(float (&d)[kColumnTiles][4]) const {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        const uint4 four = x[j][s / 2];
        mma_m16n8k16(d[j], a[s], s % 2 == 0 ? four.x : four.z, s % 2 == 0 ? four.y : four.w);
      }
    }
  }
};

// Ranks 16 t and following of a lane's two tokens, scaled and rounded: a pair of tokens becomes a
// pair of ranks. x: of ranks 2 q and the next (q = lane % 4) of token lane / 4; y: those 8 further.
__device__ __forceinline__ uint2 scaled_ranks(const LinearAdapterSlot& slot, int t,
                                              const float (&d)[4]) {
  // Eight ranks are of one slice.
  const auto scaling_of = [&](int r) {
    const int slice = r < slot.rank[0] ? 0 : r < slot.rank[0] + slot.rank[1] ? 1 : 2;
    return slot.scaling[slice];
  };
  const float upper = scaling_of(16 * t), lower = scaling_of(min(16 * t + 8, total_rank(slot) - 8));
  return make_uint2(transpose_8x8(pack_bf16(d[0] * upper, d[1] * upper)),
                    transpose_8x8(pack_bf16(d[2] * lower, d[3] * lower)));
}

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
#pragma unroll 1
    for (int unit = blockIdx.x / grid_.cluster;; unit += grid_.num_shrink_ctas / grid_.cluster) {
      const int num_runs = *p_.order.num_runs, num_groups = shrink_groups(p_);
      if (unit >= num_runs * num_groups) break;
      const int group = unit / num_runs;
      const AdapterRun& run = p_.order.runs[unit - group * num_runs];
      const LinearAdapterSlot& slot = p_.adapters[run.slot];
#pragma unroll 1
      for (int t = group; 16 * t < total_rank(slot); t += num_groups) multiply(run, slot, t);
    }
  }

 private:
  static constexpr int kColumnTiles = kMaxRunRows / 8;
  // Chunks of a warp whose loads are under way together.
  static constexpr int kChunks = 2;

  // 16 rows of A, and a run.
  __device__ __forceinline__ void multiply(const AdapterRun& run, const LinearAdapterSlot& slot,
                                           int t) {
    static_assert(kColumnTiles <= kShrinkWarps);
    const int num_parts = grid_.num_parts, num_chunks = num_shrink_chunks(p_.shape.in);
    const int first_part = grid_.cluster > 1 ? rank_in_cluster_ : 0,
              end_part = grid_.cluster > 1 ? rank_in_cluster_ + 1 : num_parts;
    const FactorTile tile(slot, num_chunks, t);
    int token[kColumnTiles];
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      const int row = 8 * j + lane_ / 4;
      token[j] = row < run.num_rows ? p_.order.token_of_row[run.first_row + row] : -1;
    }
    // A warp adds up a column tile over all warps, if there is something in it.
    const bool adds = warp_ < kColumnTiles && 8 * warp_ < run.num_rows;
    float4* const of_warps = reinterpret_cast<float4*>(shared_.weights(0)) + lane_;
    float4* const of_parts =
        of_warps + (kShrinkWarps * kColumnTiles + warp_ * Config::kMostParts) * 32;
#pragma unroll 1
    for (int part = first_part; part < end_part; ++part) {
      const int end_chunk = part_begin(num_chunks, part + 1, num_parts);
      float d[kColumnTiles][4] = {};
#pragma unroll 1
      for (int chunk = part_begin(num_chunks, part, num_parts) + warp_; chunk < end_chunk;
           chunk += kChunks * kShrinkWarps) {
        ShrinkChunk<kColumnTiles> chunks[kChunks];
#pragma unroll
        for (int c = 0; c < kChunks; ++c)
          chunks[c].load_factors(tile, chunk + kShrinkWarps * c, end_chunk, lane_);
        wait_for_previous_kernel();
#pragma unroll
        for (int c = 0; c < kChunks; ++c)
          chunks[c].load_x(p_, token, chunk + kShrinkWarps * c, end_chunk, lane_);
#pragma unroll
        for (int c = 0; c < kChunks; ++c) chunks[c].multiply(d);
      }
      linear_consumer_barrier();  // what lay there has been read
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        of_warps[(warp_ * kColumnTiles + j) * 32] = make_float4(d[j][0], d[j][1], d[j][2], d[j][3]);
      }
      linear_consumer_barrier();
      if (grid_.cluster > 1) {
        // The first CTA has read what was sent to it before.
        if (num_sent_++ > 0) cluster_barrier_relaxed();
        if (rank_in_cluster_ == 0 && threadIdx.x == 0)
          mbarrier_arrive_expect(&shared_.sums_there, grid_.cluster * kColumnTiles * 512);
      }
      if (warp_ >= kColumnTiles) continue;
      float sum[4] = {};
#pragma unroll
      for (int w = 0; adds && w < kShrinkWarps; ++w)
        add_to(sum, of_warps[(w * kColumnTiles + warp_) * 32]);
      const float4 of_part = make_float4(sum[0], sum[1], sum[2], sum[3]);
      if (grid_.cluster == 1) {
        of_parts[32 * part] = of_part;
      } else {
        store_to_cta(of_parts + 32 * part, of_part, &shared_.sums_there, 0);
      }
    }
    if (grid_.cluster > 1 && warp_ < kColumnTiles && rank_in_cluster_ == 0)
      mbarrier_wait(&shared_.sums_there, (num_sent_ - 1) % 2);
    if (!adds || rank_in_cluster_ > 0) return;
    float total[4] = {};
#pragma unroll 1
    for (int part = 0; part < num_parts; ++part) add_to(total, of_parts[32 * part]);
    mbarrier_wait(&shared_.tag_there, 0);
    store(run, slot, t, warp_, total);
    __syncwarp();
  }

  // 16 ranks and 8 tokens of the run.
  __device__ __forceinline__ void store(const AdapterRun& run, const LinearAdapterSlot& slot, int t,
                                        int column_tile, const float (&d)[4]) {
    const uint2 ranks = scaled_ranks(slot, t, d);
    const int row = 8 * column_tile + lane_ / 4;
    if (row >= run.num_rows) return;
    uint64_t* const u = p_.workspace.u +
                        int64_t{run.first_row + row} * (p_.workspace.max_total_rank / 2) + 8 * t +
                        lane_ % 4;
    store_tagged(u, ranks.x, shared_.tag);
    if (16 * t + 8 < total_rank(slot)) store_tagged(u + 4, ranks.y, shared_.tag);
  }

  const LinearBf16Params& p_;
  const LinearGrid& grid_;
  LinearShared<Config>& shared_;
  int warp_, lane_;
  int rank_in_cluster_;
  int num_sent_ = 0;
};

}  // namespace braid::kernels

// u = s * x A^T of large batches, left as BF16 in the order in which the GEMM of large batches
// loads it, or as the tagged words for which the other kernel waits.
//
// A CTA has up to 32 rows of one adapter and 16 rows of A. As in sm90_shrink.cuh eight warps share
// the chunks of each part of the columns, which come from memory to registers, so that the sums are
// the same. What a warp waits for the others of its SM have under way.

#include <algorithm>

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/linear/enqueue.h"
#include "kernels/linear/sm90_shrink.cuh"

namespace braid::kernels {
namespace {

constexpr int kThreads = 32 * kShrinkWarps;
constexpr int kCtasPerSm = 2;
constexpr int kRuns = 2;  // of a CTA
constexpr int kColumnTiles = kRuns * kMaxRunRows / 8;

using SumsOfWarps = float4[kShrinkWarps][kColumnTiles][32];

// Neighbouring rows of one adapter, and 16 rows of its A.
template <bool kTagged>
class LargeShrink {
 public:
  __device__ LargeShrink(const LinearBf16Params& p, SumsOfWarps& sums, int num_parts,
                         const AdapterRun& rows, int tile)
      : p_(p),
        sums_(sums),
        rows_(rows),
        slot_(p.adapters[rows.slot]),
        tile_(tile),
        num_chunks_(num_shrink_chunks(p.shape.in)),
        num_parts_(num_parts),
        warp_(__shfl_sync(~0u, threadIdx.x / 32, 0)),
        lane_(threadIdx.x % 32),
        tile_of_a_(slot_, num_chunks_, tile) {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      const int row = 8 * j + lane_ / 4;
      token_[j] = row < rows.num_rows ? p.order.token_of_row[rows.first_row + row] : -1;
    }
  }

  __device__ __forceinline__ void run() {
    // Of the warp's eight tokens, if it adds up what the warps have.
    float total[4] = {};
    const bool adds = warp_ < kColumnTiles && 8 * warp_ < rows_.num_rows;
#pragma unroll 1
    for (int part = 0; part < num_parts_; ++part) {
      const int end = part_begin(num_chunks_, part + 1, num_parts_);
      float d[kColumnTiles][4] = {};
#pragma unroll 1
      for (int chunk = part_begin(num_chunks_, part, num_parts_) + warp_; chunk < end;
           chunk += kShrinkWarps) {
        ShrinkChunk<kColumnTiles> of;
        of.load_factors(tile_of_a_, chunk, end, lane_);
        of.load_x(p_, token_, chunk, end, lane_);
        of.multiply(d);
      }
      if (part > 0) __syncthreads();  // what lay there has been read
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j)
        sums_[warp_][j][lane_] = make_float4(d[j][0], d[j][1], d[j][2], d[j][3]);
      __syncthreads();
      if (!adds) continue;
      float sum[4] = {};
#pragma unroll
      for (int w = 0; w < kShrinkWarps; ++w) add_to(sum, sums_[w][warp_][lane_]);
      add_to(total, make_float4(sum[0], sum[1], sum[2], sum[3]));
    }
    if (adds) store(total);
    __syncthreads();  // before other sums
  }

 private:
  __device__ __forceinline__ void store(const float (&total)[4]) const {
    const uint2 ranks = scaled_ranks(slot_, tile_, total);
    const int row = 8 * warp_ + lane_ / 4;
    if (row >= rows_.num_rows) return;
    put(rows_.first_row + row, 2 * tile_, ranks.x);
    if (tile_of_a_.ranks == 16) put(rows_.first_row + row, 2 * tile_ + 1, ranks.y);
  }

  // A lane's two of eight ranks.
  __device__ __forceinline__ void put(int row, int octet, uint32_t two) const {
    const LinearWorkspace& w = p_.workspace;
    const int pair = lane_ % 4;
    if constexpr (kTagged) {
      store_tagged(w.u + int64_t{row} * (w.max_total_rank / 2) + 4 * octet + pair, two,
                   __ldcg(w.launches) + 1);
    } else {
      reinterpret_cast<uint32_t*>(w.u_octets + u_octet_at(octet, row, w.max_tokens))[pair] = two;
    }
  }

  const LinearBf16Params& p_;
  SumsOfWarps& sums_;
  const AdapterRun& rows_;
  const LinearAdapterSlot& slot_;
  int tile_, num_chunks_, num_parts_;
  int warp_, lane_;
  FactorTile tile_of_a_;
  int token_[kColumnTiles];
};

template <bool kTagged>
__global__ __launch_bounds__(kThreads, kCtasPerSm) void linear_large_shrink_kernel(
    const __grid_constant__ LinearBf16Params p, int num_parts) {
  __shared__ SumsOfWarps sums;
  const int first_run = kRuns * blockIdx.x, tile = blockIdx.y;
  const int num_runs = min(kRuns, *p.order.num_runs - first_run);
  const AdapterRun* const runs = p.order.runs + first_run;
  wait_for_previous_kernel();
  // Not before: linear_quantize_x, which this lets start, reads x beside it without waiting.
  let_next_kernel_start();
#pragma unroll 1
  for (int i = 0; i < num_runs;) {
    AdapterRun rows = runs[i++];
    while (i < num_runs && runs[i].slot == rows.slot) rows.num_rows += runs[i++].num_rows;
    if (16 * tile < total_rank(p.adapters[rows.slot]))
      LargeShrink<kTagged>(p, sums, num_parts, rows, tile).run();
  }
}

template <bool kTagged>
void launch_shrink(const LinearBf16Params& p, CudaStream stream) {
  const auto ctas = [](int n, int of_each) {
    return static_cast<unsigned>(std::max(1, (n + of_each - 1) / of_each));
  };
  launch("linear_large_shrink", linear_large_shrink_kernel<kTagged>,
         {.grid = dim3(ctas(p.order.max_runs, kRuns), ctas(p.workspace.max_total_rank, 16)),
          .cta = dim3(kThreads)},
         stream, p, linear_parts(p.shape));
}

}  // namespace

void internal::enqueue_linear_large_shrink(const LinearBf16Params& p, const LinearPlan& plan,
                                           CudaStream stream) {
  if (plan.large_batch) {
    launch_shrink<false>(p, stream);
  } else {
    launch_shrink<true>(p, stream);
  }
}

}  // namespace braid::kernels

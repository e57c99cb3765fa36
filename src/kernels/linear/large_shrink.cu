// u = s * x A^T of large batches, left as BF16 in the order in which the GEMM of large batches
// loads it, or as the tagged words for which the other kernel waits.
//
// A CTA has up to 64 rows of one adapter and 64 rows of A, a warp eight of the tokens. Columns come
// in chunks of 64, x and A, through a ring in shared memory. A warp takes all of them, in the order
// in which the warps of sm90_shrink.cuh add up theirs: for each part of the columns the chains of
// eight warps, of every eighth chunk each. So the sums are the same.

#include <algorithm>

#include "kernels/common/async_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/packed_fragment.cuh"
#include "kernels/common/tiles.h"
#include "kernels/linear/enqueue.h"
#include "kernels/linear/sm90_shrink.cuh"

namespace braid::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRuns = kWarps * 8 / kMaxRunRows;  // of a CTA
constexpr int kTiles = 4;                        // of 16 rows of A
constexpr int kStages = 6;
constexpr int kTileBytes = 16 * kShrinkColumns * 2;  // of a chunk

struct LargeShrinkShared {
  alignas(128) uint8_t x[kStages][kWarps * 8 * 128];  // rows of 128 bytes, swizzled
  alignas(16) uint8_t a[kStages][kTiles][kTileBytes];
};
static_assert(kShrinkColumns * 2 == 128);

// The rows of some runs of one adapter, runs begin to end of the CTA's, and kTiles tiles of A.
template <bool kTagged>
class LargeShrink {
 public:
  __device__ LargeShrink(const LinearBf16Params& p, LargeShrinkShared& shared, int num_parts,
                         const AdapterRun* runs, int begin, int end, int first_tile)
      : p_(p),
        shared_(shared),
        slot_(p.adapters[runs[begin].slot]),
        total_rank_(total_rank(slot_)),
        first_tile_(first_tile),
        num_tiles_(min(kTiles, (total_rank_ + 15) / 16 - first_tile)),
        num_chunks_(num_shrink_chunks(p.shape.in)),
        num_parts_(num_parts),
        warp_(__shfl_sync(~0u, threadIdx.x / 32, 0)),
        lane_(threadIdx.x % 32) {
    // The warp's tokens are half of a run.
    if (const int run = warp_ / 2; run >= begin && run < end) {
      first_row_ = runs[run].first_row + warp_ % 2 * 8;
      num_rows_ = min(8, runs[run].num_rows - warp_ % 2 * 8);
    }
    // A thread copies 16 bytes of every 32nd row.
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int n = threadIdx.x / 8 + kThreads / 8 * i, run = n / kMaxRunRows,
                in_run = n % kMaxRunRows;
      const bool there = run >= begin && run < end && in_run < runs[run].num_rows;
      from_[i] = there ? p.x + p.order.token_of_row[runs[run].first_row + in_run] * p.x_stride +
                             threadIdx.x % 8 * 8
                       : nullptr;
    }
  }

  __device__ __forceinline__ void run() {
    ShrinkOrder loaded(num_chunks_, num_parts_), used(num_chunks_, num_parts_);
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < num_chunks_) load(i, loaded);
      async_copy_commit();
    }
    float total[kTiles][4] = {}, sum[kTiles][4] = {}, chain[kTiles][4] = {};
    int at = 0;
#pragma unroll 1
    for (int i = 0; i < num_chunks_; ++i, used.advance()) {
      async_copy_wait<kStages - 2>();
      __syncthreads();  // the copies of all threads are there, and the stage before is free
      if (i + kStages - 1 < num_chunks_) load(at == 0 ? kStages - 1 : at - 1, loaded);
      async_copy_commit();
      if (num_rows_ > 0) {
        multiply(at, chain);
        if (used.ends_chain()) move_to(sum, chain);
        if (used.ends_part()) move_to(total, sum);
      }
      at = at == kStages - 1 ? 0 : at + 1;
    }
    if (num_rows_ > 0) store(total);
    __syncthreads();  // before other loads
  }

 private:
  static constexpr int kCopies = kWarps * 8 / (kThreads / 8);

  __device__ __forceinline__ void load(int at, ShrinkOrder& order) {
    const int column = order.chunk * kShrinkColumns + threadIdx.x % 8 * 8;
    const uint32_t to_x = shared_address(shared_.x[at]), to_a = shared_address(shared_.a[at]);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const bool there = from_[i] != nullptr && column < p_.shape.in;
      async_copy_16(to_x + swizzled(threadIdx.x / 8 + kThreads / 8 * i, threadIdx.x % 8 * 16),
                    there ? from_[i] + order.chunk * kShrinkColumns : p_.x, there);
    }
#pragma unroll 1
    for (int i = 16 * threadIdx.x; i < num_tiles_ * kTileBytes; i += 16 * kThreads) {
      const int t = i / kTileBytes, byte = i % kTileBytes,
                bytes = ranks_of(t) * (kShrinkColumns * 2);
      const uint8_t* const tile =
          slot_.shrink + int64_t{num_chunks_} * kTileBytes * (first_tile_ + t);
      if (byte < bytes) async_copy_16(to_a + i, tile + order.chunk * bytes + byte, true);
    }
    order.advance();
  }

  // chain += A x of a chunk.
  __device__ __forceinline__ void multiply(int at, float (&chain)[kTiles][4]) const {
    const int row = 8 * warp_ + lane_ / 4, byte = 32 * (lane_ % 4);
    uint4 x[2];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      x[i] = *reinterpret_cast<const uint4*>(shared_.x[at] + swizzled(row, byte + 16 * i));
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (t >= num_tiles_) break;
      const int ranks = ranks_of(t);
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint4 a = load_fragment<1>(shared_.a[at][t] + 32 * ranks * s, ranks == 16, lane_);
        const uint4 four = x[s / 2];
        mma_m16n8k16(chain[t], a, s % 2 == 0 ? four.x : four.z, s % 2 == 0 ? four.y : four.w);
      }
    }
  }
  __device__ __forceinline__ int ranks_of(int t) const {
    return min(16, total_rank_ - 16 * (first_tile_ + t));
  }

  // to += from, which becomes zero.
  __device__ __forceinline__ static void move_to(float (&to)[kTiles][4], float (&from)[kTiles][4]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[t][i] += from[t][i], from[t][i] = 0.0f;
    }
  }

  __device__ __forceinline__ void store(const float (&total)[kTiles][4]) const {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (t >= num_tiles_) break;
      const int octet = 2 * (first_tile_ + t);
      const uint2 ranks = scaled_ranks(slot_, first_tile_ + t, total[t]);
      put(octet, ranks.x);
      if (ranks_of(t) == 16) put(octet + 1, ranks.y);
    }
  }

  // A lane's two of eight ranks.
  __device__ __forceinline__ void put(int octet, uint32_t two) const {
    const LinearWorkspace& w = p_.workspace;
    const int row = first_row_ + lane_ / 4, pair = lane_ % 4;
    if (lane_ / 4 >= num_rows_) return;
    if constexpr (kTagged) {
      store_tagged(w.u + int64_t{row} * (w.max_total_rank / 2) + 4 * octet + pair, two,
                   __ldcg(w.launches) + 1);
    } else {
      reinterpret_cast<uint32_t*>(w.u_octets + u_octet_at(octet, row, w.max_tokens))[pair] = two;
    }
  }

  const LinearBf16Params& p_;
  LargeShrinkShared& shared_;
  const LinearAdapterSlot& slot_;
  int total_rank_, first_tile_, num_tiles_, num_chunks_, num_parts_;
  int warp_, lane_;
  int first_row_ = 0, num_rows_ = 0;  // of the warp; 0: it has none
  const Bf16* from_[kCopies];
};

template <bool kTagged>
__global__ __launch_bounds__(kThreads, 2) void linear_large_shrink_kernel(
    const __grid_constant__ LinearBf16Params p, int num_parts) {
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<LargeShrinkShared*>(dynamic_shared);
  const int first_run = kRuns * blockIdx.x, first_tile = kTiles * blockIdx.y;
  const int num_runs = min(kRuns, *p.order.num_runs - first_run);
  const AdapterRun* const runs = p.order.runs + first_run;
  wait_for_previous_kernel();
  // Not before: linear_quantize_x, which this lets start, reads x beside it without waiting.
  let_next_kernel_start();
  for (int begin = 0, end; begin < num_runs; begin = end) {
    end = begin + 1;
    while (end < num_runs && runs[end].slot == runs[begin].slot) ++end;
    if (16 * first_tile >= total_rank(p.adapters[runs[begin].slot])) continue;
    LargeShrink<kTagged>(p, shared, num_parts, runs, begin, end, first_tile).run();
  }
}

template <bool kTagged>
void launch_shrink(const LinearBf16Params& p, CudaStream stream) {
  constexpr const char* kName = "linear_large_shrink";
  static const bool allowed = [] {
    allow_shared_bytes(kName, linear_large_shrink_kernel<kTagged>, sizeof(LargeShrinkShared));
    return true;
  }();
  (void)allowed;
  const auto ctas = [](int n, int of_each) {
    return static_cast<unsigned>(std::max(1, (n + of_each - 1) / of_each));
  };
  launch(
      kName, linear_large_shrink_kernel<kTagged>,
      {.grid = dim3(ctas(p.order.max_runs, kRuns), ctas(p.workspace.max_total_rank, 16 * kTiles)),
       .cta = dim3(kThreads),
       .shared_bytes = sizeof(LargeShrinkShared)},
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

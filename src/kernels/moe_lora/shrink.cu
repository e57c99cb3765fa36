// u = x A^T and v = h A^T, scaled: a CTA takes one run (and of gate_up one part of H), its warps
// share the columns of A.

#include <algorithm>

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/moe_lora/moe_lora.h"
#include "kernels/moe_lora/work.cuh"

namespace braid::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kRows = 32;  // of A at a time: two fragments
constexpr int kSumStride = kPieceTokens + 2;

struct ShrinkWork {
  const uint8_t* factor;
  int rank;  // 0: nothing to do
  int one_a;
  int first;  // row of u or v
  int num_tokens;
  float scaling[2];  // of gate and up; of down
};

// 16 rows of A, 16 columns a step.
struct Fragments {
  const uint8_t* at;
  int step_bytes;
  int quad_bytes;  // of 4 steps
  bool whole;      // 16 rows, not 8
};

template <bool kDown>
__device__ ShrinkWork load_work(const MoeLayerParams& p, int index) {
  const MoeLoraRun run = load_listed(p.workspace.lora_runs + index);
  const MoeAdapterSlot& slot = p.adapters[run.slot];
  const bool by_token = run.first_row >= p.workspace.max_rows;
  ShrinkWork work = {.first = run.first_row, .num_tokens = run.num_tokens};
  if constexpr (kDown) {
    if (by_token) return work;
    work.factor = slot.shrink_down + run.expert * slot.shrink_down_stride;
    work.rank = slot.rank_down;
    work.scaling[0] = slot.scaling_down;
  } else {
    // An A that experts share is multiplied once a token.
    if (by_token != (slot.shrink_gate_up_stride == 0)) return work;
    work.factor = slot.shrink_gate_up + run.expert * slot.shrink_gate_up_stride;
    work.rank = slot.rank_gate_up;
    work.one_a = slot.one_a;
    work.scaling[0] = slot.scaling_gate, work.scaling[1] = slot.scaling_up;
  }
  return work;
}

// d = rows [begin, begin + 32) of A times the tokens, over 64 columns for each quad.
template <bool kDown>
__device__ __forceinline__ void multiply(const ShrinkWork& work, int rows, int begin, int depth,
                                         const __nv_bfloat16* const (&x)[kColumnTiles],
                                         int num_tokens, int first_quad, int end_quad, int lane,
                                         float (&d)[2][kColumnTiles][4]) {
  const bool two = rows - begin > 16;
  Fragments a[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int first = begin + 16 * i;
    a[i].whole = rows - first >= 16;
    if constexpr (kDown) {
      a[i].at = work.factor + first / 16 * kDownShrinkStepBytes;
      a[i].step_bytes = a[i].whole ? 512 : 256;
      a[i].quad_bytes = static_cast<int>(down_shrink_tile_bytes(work.rank));
    } else {
      a[i].at = work.factor + int64_t{first / 64} * 64 * 2 * depth + first / 16 % 4 * 512;
      a[i].step_bytes = 32 * slab_rows(rows, first / 64);
      a[i].quad_bytes = 4 * a[i].step_bytes;
    }
  }
#pragma unroll 1
  for (int quad = first_quad; quad < end_quad; ++quad) {
    uint4 fragment[2][4] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (i > 0 && !two) continue;
      const uint8_t* const at = a[i].at + int64_t{quad} * a[i].quad_bytes;
#pragma unroll
      for (int s = 0; s < 4; ++s)
        fragment[i][s] = load_factor<1>(at + s * a[i].step_bytes, a[i].whole, lane);
    }
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (j > 0 && num_tokens <= 8 * j) continue;
      const uint32_t* const from = reinterpret_cast<const uint32_t*>(x[j] + quad * 64);
      uint32_t b[4][2];
#pragma unroll
      for (int s = 0; s < 4; ++s) b[s][0] = from[8 * s], b[s][1] = from[8 * s + 4];
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        mma_m16n8k16(d[0][j], fragment[0][s], b[s][0], b[s][1]);
        mma_m16n8k16(d[1][j], fragment[1][s], b[s][0], b[s][1]);
      }
    }
  }
}

template <bool kDown>
__global__ __launch_bounds__(kWarps * 32, 2) void moe_lora_shrink_kernel(
    const __grid_constant__ MoeLayerParams p) {
  // --- who am I ---
  constexpr int kParts = kDown ? 1 : kLoraParts;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = lane / 4, column = 2 * (lane % 4);  // in a fragment
  const int depth = kDown ? p.sizes.moe_intermediate_size : p.sizes.hidden_size;
  __shared__ __align__(16) float sums[kWarps][kRows][kSumStride];
  let_next_kernel_start();
  const int num_units = __ldcg(&p.workspace.counts->num_shrink_items) * kParts;
  ShrinkWork next;
  if (blockIdx.x < num_units) next = load_work<kDown>(p, blockIdx.x / kParts);
  wait_for_previous_kernel();

#pragma unroll 1
  for (int unit = blockIdx.x; unit < num_units; unit += gridDim.x) {
    const ShrinkWork work = next;
    if (unit + gridDim.x < num_units) next = load_work<kDown>(p, (unit + gridDim.x) / kParts);
    // The columns are shared out alike whatever else is in the batch: 64 at a time.
    const int part = unit % kParts, share = part * kWarps + warp, num_quads = depth / 64;
    const int first_quad = share * num_quads / (kParts * kWarps);
    const int end_quad = (share + 1) * num_quads / (kParts * kWarps);
    const int rows = kDown || work.one_a ? work.rank : 2 * work.rank;
#pragma unroll 1
    for (int piece = 0; piece < work.num_tokens; piece += kPieceTokens) {
      const int num_tokens = min(kPieceTokens, work.num_tokens - piece);
      const int first = work.first + piece;
      const __nv_bfloat16* x[kColumnTiles];
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        const int at = first + min(8 * j + row, num_tokens - 1);
        x[j] = column +
               (kDown ? reinterpret_cast<const __nv_bfloat16*>(p.workspace.h) + int64_t{at} * depth
                      : reinterpret_cast<const __nv_bfloat16*>(p.x) +
                            int64_t{__ldcg(p.workspace.token_of_row + at)} * depth);
      }
#pragma unroll 1
      for (int begin = 0; begin < rows; begin += kRows) {
        float d[2][kColumnTiles][4] = {};
        multiply<kDown>(work, rows, begin, depth, x, num_tokens, first_quad, end_quad, lane, d);
        // --- the warps' sums, added in their order ---
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int j = 0; j < kColumnTiles; ++j) {
            float* const to = &sums[warp][16 * i + row][8 * j + column];
            *reinterpret_cast<float2*>(to) = make_float2(d[i][j][0], d[i][j][1]);
            *reinterpret_cast<float2*>(to + 8 * kSumStride) = make_float2(d[i][j][2], d[i][j][3]);
          }
        }
        __syncthreads();
        const int rows_here = min(kRows, rows - begin);
        for (int i = threadIdx.x; i < kRows * num_tokens; i += kWarps * 32) {
          const int in_rows = i % kRows, n = i / kRows;
          if (in_rows >= rows_here) continue;
          float sum = 0.0f;
#pragma unroll
          for (int w = 0; w < kWarps; ++w) sum += sums[w][in_rows][n];
          const int r = begin + in_rows;
          if constexpr (kDown) {
            lora_v_of(p, r / 16, first + n)[r % 16] = sum * work.scaling[0];
          } else {
            const auto store = [&](int of_rank, int up) {
              lora_u_of(p, of_rank / 16, first + n)[(up * kLoraParts + part) * 16 + of_rank % 16] =
                  sum * work.scaling[up];
            };
            if (work.one_a || r < work.rank) store(r, 0);
            if (work.one_a || r >= work.rank) store(work.one_a ? r : r - work.rank, 1);
          }
        }
      }
    }
  }
}

template <bool kDown>
void launch_shrink(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const int pairs = p.num_tokens * p.sizes.pairs_per_token();
  const int units = kDown ? pairs : kLoraParts * (pairs + p.num_tokens);
  // On the side stream it comes behind a fork.
  launch(kDown ? "moe_lora_shrink_down" : "moe_lora_shrink_gate_up", moe_lora_shrink_kernel<kDown>,
         {.grid = dim3(std::min(units, 2 * plan.num_sms)),
          .cta = dim3(kWarps * 32),
          .overlap_previous = plan.lora_plan != MoeLoraPlan::kTwoStream},
         stream, p);
}

}  // namespace

void launch_moe_lora_shrink(const MoeLayerParams& p, const MoePlan& plan, MoeProjection projection,
                            CudaStream stream) {
  if (projection == MoeProjection::kGateUp) return launch_shrink<false>(p, plan, stream);
  launch_shrink<true>(p, plan, stream);
}

}  // namespace braid::kernels

// The deltas B u and B v of every run, in float: a CTA takes two tiles of 128 rows of B for one
// run.

#include <algorithm>

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/moe_lora/moe_lora.h"
#include "kernels/moe_lora/work.cuh"

namespace braid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kTiles = 2;
constexpr int kFragments = 2 * kTiles;  // of a warp: rows 16 * warp and 64 + 16 * warp of each tile

struct ExpandWork {
  const uint8_t* factor;  // its first tile
  int rank;               // 0: nothing to do
  int first;              // row of the activations
  int num_tokens;
};

template <bool kDown>
__device__ ExpandWork load_work(const MoeLayerParams& p, int run_index, int first_tile) {
  const MoeLoraRun run = load_listed(p.workspace.lora_runs + run_index);
  const MoeAdapterSlot& slot = p.adapters[run.slot];
  ExpandWork work = {.first = run.first_row, .num_tokens = run.num_tokens};
  if (run.first_row >= p.workspace.max_rows) return work;
  work.rank = kDown ? slot.rank_down : slot.rank_gate_up;
  work.factor = (kDown ? slot.expand_down + run.expert * slot.expand_down_stride
                       : slot.expand_gate_up + run.expert * slot.expand_gate_up_stride) +
                first_tile * expand_tile_bytes(work.rank);
  return work;
}

// B operand of 16 ranks: the parts from `at` on added in their order, as BF16.
template <int kParts>
__device__ __forceinline__ uint2 load_ranks(const float* at, bool whole) {
  float2 low = {}, high = {};
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const float2 a = __ldcg(reinterpret_cast<const float2*>(at + 16 * i));
    const float2 b = __ldcg(reinterpret_cast<const float2*>(at + 16 * i + 8));
    low.x += a.x, low.y += a.y, high.x += b.x, high.y += b.y;
  }
  // Ranks 8 to 15 of a half step are nobody's.
  return {pack_bf16(low.x, low.y), whole ? pack_bf16(high.x, high.y) : 0};
}

template <bool kDown>
__global__ __launch_bounds__(kThreads, 5) void moe_lora_expand_kernel(
    const __grid_constant__ MoeLayerParams p) {
  // --- who am I ---
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = lane / 4, column = 2 * (lane % 4);  // in a fragment
  const int hidden = p.sizes.hidden_size, width = p.sizes.moe_intermediate_size;
  const int num_tiles = kDown ? hidden / 128 : width / 64;
  const int per_run = (num_tiles + kTiles - 1) / kTiles;
  let_next_kernel_start();
  const int num_units = __ldcg(&p.workspace.counts->num_shrink_items) * per_run;
  const auto load = [&](int unit) {
    return load_work<kDown>(p, unit / per_run, unit % per_run * kTiles);
  };
  ExpandWork next;
  if (blockIdx.x < num_units) next = load(blockIdx.x);
  wait_for_previous_kernel();

#pragma unroll 1
  for (int unit = blockIdx.x; unit < num_units; unit += gridDim.x) {
    const ExpandWork work = next;
    if (unit + gridDim.x < num_units) next = load(unit + gridDim.x);
    if (work.rank == 0) continue;
    const int first_tile = unit % per_run * kTiles;
    const bool both = first_tile + 1 < num_tiles;
#pragma unroll 1
    for (int piece = 0; piece < work.num_tokens; piece += kPieceTokens) {
      const int num_tokens = min(kPieceTokens, work.num_tokens - piece);
      const int first = work.first + piece;
      int from[kColumnTiles];  // rows of u or v
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        from[j] = first + min(8 * j + row, num_tokens - 1);
        if constexpr (!kDown) from[j] = __ldcg(p.workspace.u_row_of_row + from[j]);
      }
      // --- multiply ---
      float d[kFragments][kColumnTiles][4] = {};
#pragma unroll 1
      for (int step = 0; step < rank_steps(work.rank); ++step) {
        const bool whole = step_width(work.rank, step) == 16;
        const uint8_t* const at =
            work.factor + step * kExpandStepBytes + warp * (whole ? 512 : 256);
        uint4 b[kFragments] = {};
#pragma unroll
        for (int f = 0; f < kFragments; ++f) {
          if (f >= 2 && !both) continue;
          b[f] = load_factor<2>(
              at + f / 2 * expand_tile_bytes(work.rank) + f % 2 * (whole ? 2048 : 1024), whole,
              lane);
        }
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          if (j > 0 && num_tokens <= 8 * j) continue;
          if constexpr (kDown) {
            const uint2 v = load_ranks<1>(lora_v_of(p, step, from[j]) + column, whole);
#pragma unroll
            for (int f = 0; f < kFragments; ++f) mma_m16n8k16(d[f][j], b[f], v.x, v.y);
          } else {
            // Gate's rows take u of gate, up's that of up.
            const float* const u = lora_u_of(p, step, from[j]) + column;
            const uint2 gate = load_ranks<kLoraParts>(u, whole);
            const uint2 up = load_ranks<kLoraParts>(u + 16 * kLoraParts, whole);
#pragma unroll
            for (int f = 0; f < kFragments; ++f) {
              mma_m16n8k16(d[f][j], make_uint4(b[f].x, 0, b[f].z, 0), gate.x, gate.y);
              mma_m16n8k16(d[f][j], make_uint4(0, b[f].y, 0, b[f].w), up.x, up.y);
            }
          }
        }
      }
      // --- store: 8 lanes write 32 bytes of a token ---
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        if (j > 0 && num_tokens <= 8 * j) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = 8 * j + column + i % 2;
          if (n >= num_tokens) continue;
          const int64_t out_row = first + n;
          float* const to = kDown ? p.workspace.down_delta + out_row * hidden + 128 * first_tile +
                                        16 * warp + row + i / 2 * 8
                                  : p.workspace.gate_up_delta + (2 * out_row + i / 2) * width +
                                        64 * first_tile + 8 * warp + row;
          constexpr int kFragmentStep = kDown ? 64 : 32;
#pragma unroll
          for (int f = 0; f < kFragments; ++f)
            if (f < 2 || both) to[f * kFragmentStep] = d[f][j][i];
        }
      }
    }
  }
}

template <bool kDown>
void launch_expand(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const int num_tiles = kDown ? p.sizes.hidden_size / 128 : p.sizes.moe_intermediate_size / 64;
  const int pairs = p.num_tokens * p.sizes.pairs_per_token();
  launch(kDown ? "moe_lora_expand_down" : "moe_lora_expand_gate_up", moe_lora_expand_kernel<kDown>,
         {.grid = dim3(std::min(pairs * ((num_tiles + kTiles - 1) / kTiles), 5 * plan.num_sms)),
          .cta = dim3(kThreads)},
         stream, p);
}

}  // namespace

void launch_moe_lora_expand(const MoeLayerParams& p, const MoePlan& plan, MoeProjection projection,
                            CudaStream stream) {
  if (projection == MoeProjection::kGateUp) return launch_expand<false>(p, plan, stream);
  launch_expand<true>(p, plan, stream);
}

}  // namespace braid::kernels

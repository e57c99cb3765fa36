// The deltas B u and B v of every run, in float: a CTA takes 128 rows of B for one tile's runs.

#include <algorithm>

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/moe_lora/moe_lora.h"
#include "kernels/moe_lora/runs.cuh"

namespace braid::kernels {
namespace {

constexpr int kThreads = 128;

struct ExpandRun {
  const uint8_t* factor;  // its 128 rows
  int32_t rank;
  int32_t first;  // row of the activations
  int32_t num_tokens;
  int32_t unused;
};

// Lane i gets run i of the tile.
template <bool kDown>
__device__ ExpandRun run_of_tile(const MoeLayerParams& p, int tile_index, int index, int lane) {
  ExpandRun mine = {};
  const MoeTokenTile tile = load_listed(p.workspace.tiles + tile_index);
  if (lane >= tile.num_runs) return mine;
  const MoeRun run = load_listed(p.workspace.runs + tile.first_row + lane);
  const MoeAdapterSlot& slot = p.adapters[run.slot];
  mine.rank = kDown ? run.rank_down : run.rank_gate_up;
  mine.factor = (kDown ? slot.expand_down + run.expert * slot.expand_down_stride
                       : slot.expand_gate_up + run.expert * slot.expand_gate_up_stride) +
                index * expand_tile_bytes(mine.rank);
  mine.first = tile.first_row + run.begin;
  mine.num_tokens = run.end - run.begin;
  return mine;
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
  const int per_tile = kDown ? hidden / 128 : width / 64;
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int num_units = __ldcg(&p.workspace.counts->num_tiles) * per_tile;

#pragma unroll 1
  for (int unit = blockIdx.x; unit < num_units; unit += gridDim.x) {
    const int index = unit % per_tile;
    for_each_run(run_of_tile<kDown>(p, unit / per_tile, index, lane), [&](const ExpandRun& run) {
      // --- rows 16 * warp and 64 + 16 * warp of B times the tokens ---
      int in_row[kRunColumnTiles];  // of u or v
#pragma unroll
      for (int j = 0; j < kRunColumnTiles; ++j) {
        in_row[j] = run.first + min(8 * j + row, run.num_tokens - 1);
        if constexpr (!kDown) in_row[j] = __ldcg(p.workspace.u_row_of_row + in_row[j]);
      }
      float d[2][kRunColumnTiles][4] = {};
#pragma unroll 1
      for (int step = 0; step < rank_steps(run.rank); ++step) {
        const bool whole = step_width(run.rank, step) == 16;
        const uint8_t* const at =
            run.factor + step * kExpandStepBytes + warp * (whole ? 512 : 256);
        const uint4 b0 = load_factor<2>(at, whole, lane);
        const uint4 b1 = load_factor<2>(at + (whole ? 2048 : 1024), whole, lane);
#pragma unroll
        for (int j = 0; j < kRunColumnTiles; ++j) {
          if (j > 0 && 8 * j >= run.num_tokens) continue;
          if constexpr (kDown) {
            const uint2 v = load_ranks<1>(lora_v_of(p, step, in_row[j]) + column, whole);
            mma_m16n8k16(d[0][j], b0, v.x, v.y);
            mma_m16n8k16(d[1][j], b1, v.x, v.y);
          } else {
            // Gate's rows take u of gate, up's that of up.
            const float* const u = lora_u_of(p, step, in_row[j]) + column;
            const uint2 gate = load_ranks<kLoraParts>(u, whole);
            const uint2 up = load_ranks<kLoraParts>(u + 16 * kLoraParts, whole);
            mma_m16n8k16(d[0][j], make_uint4(b0.x, 0, b0.z, 0), gate.x, gate.y);
            mma_m16n8k16(d[1][j], make_uint4(b1.x, 0, b1.z, 0), gate.x, gate.y);
            mma_m16n8k16(d[0][j], make_uint4(0, b0.y, 0, b0.w), up.x, up.y);
            mma_m16n8k16(d[1][j], make_uint4(0, b1.y, 0, b1.w), up.x, up.y);
          }
        }
      }
      // --- store: 8 lanes write 32 bytes of a token ---
#pragma unroll
      for (int j = 0; j < kRunColumnTiles; ++j) {
        if (j > 0 && 8 * j >= run.num_tokens) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = 8 * j + column + i % 2;
          if (n >= run.num_tokens) continue;
          const int64_t out_row = run.first + n;
          if constexpr (kDown) {
            float* const to = p.workspace.down_delta + out_row * hidden + 128 * index + 16 * warp +
                              row + i / 2 * 8;
            to[0] = d[0][j][i], to[64] = d[1][j][i];
          } else {
            float* const to = p.workspace.gate_up_delta + (2 * out_row + i / 2) * width +
                              64 * index + 8 * warp + row;
            to[0] = d[0][j][i], to[32] = d[1][j][i];
          }
        }
      }
    });
  }
}

template <bool kDown>
void launch_expand(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const int per_tile = kDown ? p.sizes.hidden_size / 128 : p.sizes.moe_intermediate_size / 64;
  launch(kDown ? "moe_lora_expand_down" : "moe_lora_expand_gate_up", moe_lora_expand_kernel<kDown>,
         {.grid = dim3(std::min(most_tiles(p, plan) * per_tile, 32 * plan.num_sms)),
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

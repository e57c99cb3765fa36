#pragma once

// LoRA in the epilogues of the GEMMs of large batches: expand into the sums, and the shrink of down
// from h.

#include <cstdint>

#include "kernels/common/async_copy.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/common/named_barrier.cuh"
#include "kernels/moe_gemm/large_lora.cuh"
#include "kernels/moe_gemm/sm90_large_shared.cuh"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {

// By 32-bit addresses, in the order of the program.
__device__ __forceinline__ uint4 load_shared_u4(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}
__device__ __forceinline__ uint2 load_shared_u2(uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}

// What one warp of a warpgroup works on.
struct LargePart {
  int32_t tile_row;  // of the token tile
  int32_t first;     // of the warpgroup's tokens, in the tile
  int32_t num_tokens;
  int32_t num_runs;  // of the tile
  int32_t row_tile;
  int32_t group;  // warpgroup
  int32_t warp;   // in the warpgroup
  int32_t lane;
};

__device__ __forceinline__ void large_group_barrier(int group) { barrier_wait<128>(1 + group); }

// Brings u or v of a step of ranks and, with the first, the first runs into shared memory; a thread
// of the warpgroup copies what is its part. The warpgroup has no more use for what lay there.
template <class Config>
__device__ __forceinline__ void large_ask_for_ranks(const MoeLayerParams& p,
                                                    LargeShared<Config>& shared,
                                                    const LargePart& part, int step) {
  constexpr int kChunks = Config::kRankBytes / 16;  // of a token
  const int thread = 32 * part.warp + part.lane;
  const uint32_t to = shared_address(shared.scratch[part.group]);
  for (int i = thread; i < part.num_tokens * kChunks; i += 128) {
    const int row = part.tile_row + part.first + i / kChunks;
    const Bf16* const from = Config::kGateUp ? large_u_of(p, step, row) : large_v_of(p, step, row);
    async_copy_16(to + 16 * i, reinterpret_cast<const uint4*>(from) + i % kChunks, true);
  }
  if (step == 0) {
    const int pieces = min(part.num_runs, Config::kRuns) * (sizeof(MoeLargeRun) / 16);
    if (thread < pieces) {
      async_copy_16(shared_address(shared.runs[part.group]) + 16 * thread,
                    reinterpret_cast<const uint4*>(p.workspace.large_runs + part.tile_row) + thread,
                    true);
    }
  }
  async_copy_commit();
}
__device__ __forceinline__ void large_wait_for_ranks(int group) {
  async_copy_wait<0>();
  large_group_barrier(group);
}

// A run, of which this warpgroup has the tokens [begin, end), and a factor of it.
struct LargePartRun {
  int32_t begin = 0, end = 0;
  int32_t rank = 0;  // 0: there is nothing to do
  float scaling = 0.0f;
  const uint8_t* factor = nullptr;  // of the row tile
};

enum class LargeFactor { kExpandGateUp, kShrinkDown, kExpandDown };

template <LargeFactor kFactor, class Config>
__device__ __forceinline__ LargePartRun load_large_run(const MoeLayerParams& p,
                                                       LargeShared<Config>& shared,
                                                       const LargePart& part, int index) {
  LargePartRun run;
  if (index >= part.num_runs) return run;
  const MoeLargeRun* const at = index < Config::kRuns
                                    ? &shared.runs[part.group][index]
                                    : p.workspace.large_runs + part.tile_row + index;
  run.begin = max(0, at->begin - part.first);
  run.end = min(part.num_tokens, at->end - part.first);
  if (run.begin >= run.end) return {};
  run.rank = kFactor == LargeFactor::kExpandGateUp ? at->rank_gate_up : at->rank_down;
  if constexpr (kFactor == LargeFactor::kExpandGateUp) {
    run.factor = at->expand_gate_up + part.row_tile * expand_tile_bytes(run.rank);
  } else if constexpr (kFactor == LargeFactor::kExpandDown) {
    run.factor = at->expand_down + part.row_tile * expand_tile_bytes(run.rank);
  } else {
    run.factor = at->shrink_down + part.row_tile * down_shrink_tile_bytes(run.rank);
    run.scaling = at->scaling_down;
  }
  return run;
}

// sum += B u (gate_up) or B v (down): every run's B times its tokens' columns, the others zero.
template <class Config, int kColumnTiles>
__device__ __forceinline__ void large_expand(const MoeLayerParams& p, LargeShared<Config>& shared,
                                             const LargePart& part,
                                             float (&sum)[2][kColumnTiles][4]) {
  constexpr LargeFactor kFactor =
      Config::kGateUp ? LargeFactor::kExpandGateUp : LargeFactor::kExpandDown;
  const int lane = part.lane, row = lane / 4;
  const uint32_t ranks = shared_address(shared.scratch[part.group]) + row * Config::kRankBytes +
                         lane % 4 * (Config::kRankBytes / 4);
  if (part.num_runs == 0) return;
  int max_rank = 1;
#pragma unroll 1
  for (int step = 0; 16 * step < max_rank; ++step) {
    if (step > 0) {
      large_group_barrier(part.group);
      large_ask_for_ranks(p, shared, part, step);
    }
    large_wait_for_ranks(part.group);
#pragma unroll 1
    for (int r = 0; r < part.num_runs; ++r) {
      const LargePartRun run = load_large_run<kFactor>(p, shared, part, r);
      max_rank = max(max_rank, run.rank);
      if (16 * step >= run.rank) continue;
      const bool whole = step_width(run.rank, step) == 16;
      const int fragment_bytes = whole ? 512 : 256;
      const uint8_t* const at = run.factor + step * kExpandStepBytes + part.warp * fragment_bytes;
      const uint4 b0 = load_large_factor<2>(at, whole, lane);
      const uint4 b1 = load_large_factor<2>(at + 4 * fragment_bytes, whole, lane);
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        if (8 * j >= run.end || 8 * j + 8 <= run.begin) continue;
        const int n = 8 * j + row;
        const bool mine = n >= run.begin && n < run.end;
        const auto pick = [&](uint32_t value, bool has) { return mine && has ? value : 0u; };
        const uint32_t from = ranks + 8 * j * Config::kRankBytes;
        if constexpr (Config::kGateUp) {
          const uint4 u = load_shared_u4(from);
          const uint32_t g0 = pick(u.x, true), g1 = pick(u.y, whole);
          const uint32_t u0 = pick(u.z, true), u1 = pick(u.w, whole);
          mma_m16n8k16(sum[0][j], make_uint4(b0.x, 0, b0.z, 0), g0, g1);
          mma_m16n8k16(sum[1][j], make_uint4(b1.x, 0, b1.z, 0), g0, g1);
          mma_m16n8k16(sum[0][j], make_uint4(0, b0.y, 0, b0.w), u0, u1);
          mma_m16n8k16(sum[1][j], make_uint4(0, b1.y, 0, b1.w), u0, u1);
        } else {
          const uint2 v = load_shared_u2(from);
          const uint32_t v0 = pick(v.x, true), v1 = pick(v.y, whole);
          mma_m16n8k16(sum[0][j], b0, v0, v1);
          mma_m16n8k16(sum[1][j], b1, v0, v1);
        }
      }
    }
  }
}

// The part of v that the 64 features of a row tile make, of 32 tokens whose h lies at `h` in shared
// memory: a warp takes 8 of them, from `mine` on.
template <class Config>
__device__ __forceinline__ void large_down_shrink(const MoeLayerParams& p,
                                                  LargeShared<Config>& shared,
                                                  const LargePart& part, uint32_t h, int mine) {
  const int lane = part.lane, row = lane / 4, column = 2 * (lane % 4);
  if (mine >= part.num_tokens) return;
  const uint32_t from = h + (8 * part.warp + lane % 8) * Config::kHStride + lane / 8 % 2 * 16;
#pragma unroll 1
  for (int r = 0; r < part.num_runs; ++r) {
    const LargePartRun run = load_large_run<LargeFactor::kShrinkDown>(p, shared, part, r);
    if (run.begin >= mine + 8 || run.end <= mine) continue;
#pragma unroll 1
    for (int step = 0; 16 * step < run.rank; ++step) {
      const bool whole = step_width(run.rank, step) == 16;
      const uint8_t* const factor = run.factor + step * kDownShrinkStepBytes;
      uint4 a[4];
#pragma unroll
      for (int s = 0; s < 4; ++s)
        a[s] = load_large_factor<1>(factor + s * (whole ? 512 : 256), whole, lane);
      float d[4] = {};
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint2 b = ldmatrix_x2(from + 32 * s);
        mma_m16n8k16(d, a[s], b.x, b.y);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = mine + column + i % 2;
        if (n < run.begin || n >= run.end || (i >= 2 && !whole)) continue;
        large_v_part(p, step, part.tile_row + part.first + n, part.row_tile)[row + i / 2 * 8] =
            d[i] * run.scaling;
      }
    }
  }
}

}  // namespace braid::kernels

#pragma once

// Prefill attention over a cache in e4m3 (in BF16: sm90_prefill.cuh).
//
// A CTA takes kRows rows of one sequence and KV head; a row is a query and one of the heads that
// share the KV head, so that all of them use each key that was read. Tiles of kTileKeys keys and
// values come by asynchronous copies, one tile ahead, and become BF16 in shared memory. A warp owns
// its rows and goes over the tiles with online softmax in float; a tile that is masked for a row
// leaves its bits as they are.

#include <cstdint>

#include "kernels/attention/attention_bf16.h"
#include "kernels/attention/kv_elements.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mma.cuh"

namespace braid::kernels {

template <int kHeadDim>
struct PrefillE4m3Config {
  static constexpr int kDim = kHeadDim;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRowTiles = kDim > 128 ? 1 : 2;  // of 16 rows, a warp
  static constexpr int kWarpRows = 16 * kRowTiles;
  static constexpr int kRows = kWarps * kWarpRows;
  static constexpr int kTileKeys = 64;
  // Keys of one step of the softmax: as many as the registers have room for.
  static constexpr int kStepKeys = kRowTiles == 2 ? 32 : 64;
  // Bytes of a row in shared memory: an odd number of 16-byte chunks, so that 8 rows lie in
  // different banks.
  static constexpr int kStride = 2 * kDim + 16;
  static constexpr int kRawBytes = kTileKeys * kDim;  // of keys or of values as they are copied
};

template <class Config>
struct PrefillE4m3Shared {
  alignas(128) uint8_t q[Config::kRows][Config::kStride];  // later the outputs
  alignas(128) uint8_t kv[2][Config::kTileKeys][Config::kStride];
  alignas(128) uint8_t raw[2][Config::kRawBytes];
};

// The rows of one CTA.
struct PrefillTile {
  int32_t sequence;  // -1: none
  int32_t first_row;
};

// Tile `tile` of all, the sequences' tiles in their order. Every warp finds it by itself.
template <class Config>
__device__ __forceinline__ PrefillTile find_tile(const AttentionBf16Params& p, int group, int tile,
                                                 int lane) {
  const int per_lane = (p.num_sequences + 31) / 32;
  const auto num_tiles = [&](int s) {
    const int rows = (p.query_indptr[s + 1] - p.query_indptr[s]) * group;
    return (rows + Config::kRows - 1) / Config::kRows;
  };
  int sum = 0;
  for (int s = lane * per_lane; s < min(p.num_sequences, (lane + 1) * per_lane); ++s)
    sum += num_tiles(s);
  int before = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0u, before, step);
    if (lane >= step) before += other;
  }
  before -= sum;
  PrefillTile found = {.sequence = -1, .first_row = 0};
  const bool mine = before <= tile && tile < before + sum;
  if (mine) {
    int s = lane * per_lane, at = before;
    while (tile >= at + num_tiles(s)) at += num_tiles(s++);
    found = {.sequence = s, .first_row = (tile - at) * Config::kRows};
  }
  const unsigned owner = __ballot_sync(~0u, mine);
  if (owner == 0) return found;
  const int from = __ffs(static_cast<int>(owner)) - 1;
  return {.sequence = __shfl_sync(~0u, found.sequence, from),
          .first_row = __shfl_sync(~0u, found.first_row, from)};
}

template <class Config>
__global__ __launch_bounds__(Config::kThreads) void attention_prefill_e4m3_kernel(
    const __grid_constant__ AttentionBf16Params p) {
  constexpr int kDim = Config::kDim, kTileKeys = Config::kTileKeys, kStride = Config::kStride;
  constexpr int kRowTiles = Config::kRowTiles, kStepKeys = Config::kStepKeys;
  using Elements = KvElements<KvFormat::kE4m3>;
  extern __shared__ __align__(128) uint8_t bytes[];
  auto& shared = *reinterpret_cast<PrefillE4m3Shared<Config>*>(bytes);

  // --- who am I; long rows first ---
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int group = p.num_heads / p.kv.num_kv_heads, kv_head = blockIdx.y;
  wait_for_previous_kernel();
  const PrefillTile tile =
      find_tile<Config>(p, group, static_cast<int>(gridDim.x - 1 - blockIdx.x), lane);
  if (tile.sequence < 0) return;
  const int token0 = p.query_indptr[tile.sequence];
  const int num_queries = p.query_indptr[tile.sequence + 1] - token0;
  const int num_rows = min(Config::kRows, num_queries * group - tile.first_row);
  // The first query stands at this position.
  const int position0 = p.context_len[tile.sequence] - num_queries;
  const int num_keys = position0 + (tile.first_row + num_rows - 1) / group + 1;
  const int num_tiles = (num_keys + kTileKeys - 1) / kTileKeys;

  // --- q; rows beyond the last are zero ---
  const auto element_of_row = [&](int row) {  // in a [T, num_heads, 1] array
    const int number = tile.first_row + row, query = number / group;
    return make_int2(token0 + query, kv_head * group + number - query * group);
  };
  constexpr int kChunks = kDim / 8;  // of 16 bytes, a row of BF16
  for (int i = thread; i < Config::kRows * kChunks; i += Config::kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int2 at = element_of_row(min(row, num_rows - 1));
    async_copy_16(shared_address(&shared.q[row][16 * chunk]),
                  p.q + at.x * p.q_stride + int64_t{at.y} * kDim + 8 * chunk, row < num_rows);
  }

  // --- copies of keys and values ---
  const int block_shift = 31 - __clz(p.kv.block_size);
  const int32_t* const table = p.block_table + int64_t{tile.sequence} * p.max_kv_blocks;
  const auto copy_tile = [&](int t) {
    constexpr int kRowChunks = kDim * Elements::kBytes / 16;
#pragma unroll 1
    for (int i = thread; i < kTileKeys * kRowChunks; i += Config::kThreads) {
      const int row = i / kRowChunks, chunk = i % kRowChunks, key = t * kTileKeys + row;
      const bool there = key < num_keys;
      const int block = there ? __ldg(table + (key >> block_shift)) : 0;
      const int64_t kv_row = (int64_t{block} * p.kv.num_kv_heads + kv_head) << block_shift |
                             (key & (p.kv.block_size - 1));
      const int64_t offset = kv_row * (kDim * Elements::kBytes) + 16 * chunk;
      async_copy_16(shared_address(&shared.raw[0][16 * i]),
                    static_cast<const uint8_t*>(p.kv.k_cache) + offset, there);
      async_copy_16(shared_address(&shared.raw[1][16 * i]),
                    static_cast<const uint8_t*>(p.kv.v_cache) + offset, there);
    }
    async_copy_commit();
  };
  copy_tile(0);

  // --- rows of this lane: lane / 4 and 8 more, in each row tile ---
  int last_key[kRowTiles][2];  // that the row sees
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int row = warp * Config::kWarpRows + 16 * m + lane / 4 + 8 * e;
      last_key[m][e] = position0 + (tile.first_row + min(row, num_rows - 1)) / group;
    }
  }
  const int warp_first_row = min(warp * Config::kWarpRows, num_rows - 1);
  const int warp_last_row = min(warp * Config::kWarpRows + Config::kWarpRows, num_rows) - 1;
  // Up to this key no row of the warp is masked, past that one all are.
  const int all_see = position0 + (tile.first_row + warp_first_row) / group;
  const int some_see = position0 + (tile.first_row + max(warp_last_row, 0)) / group;
  const float scale = p.softmax_scale * 1.4426950408889634f * p.kv.k_scale;  // log2(e)

  float out[kRowTiles][kDim / 8][4] = {};
  float max[kRowTiles][2], sum[kRowTiles][2] = {};
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) max[m][0] = max[m][1] = -INFINITY;
  // Addresses of this lane's row of the 8x8 matrices that ldmatrix reads.
  const uint32_t q_address =
      shared_address(&shared.q[warp * Config::kWarpRows + lane % 16][lane / 16 * 16]);
  const uint32_t k_lane = (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 16;
  const uint32_t v_lane = (lane % 16) * kStride + lane / 16 * 16;

  for (int t = 0; t < num_tiles; ++t) {
    // --- the tile is there, and everyone is done with the one before ---
    async_copy_wait<0>();
    __syncthreads();
    for (int i = thread; i < 2 * kTileKeys * kDim / 8; i += Config::kThreads) {
      const int v = i / (kTileKeys * kDim / 8), eight = i % (kTileKeys * kDim / 8);
      const int row = eight / (kDim / 8), chunk = eight % (kDim / 8);
      *reinterpret_cast<uint4*>(&shared.kv[v][row][16 * chunk]) =
          Elements::load_8(shared.raw[v], 8 * eight);
    }
    __syncthreads();
    if (t + 1 < num_tiles) copy_tile(t + 1);
#pragma unroll 1
    for (int step = 0; step < kTileKeys; step += kStepKeys) {
      const int key0 = t * kTileKeys + step;
      if (key0 > some_see) break;
      const uint32_t keys = shared_address(shared.kv[0][step]) + k_lane;
      const uint32_t values = shared_address(shared.kv[1][step]) + v_lane;

      // --- scores ---
      float score[kRowTiles][kStepKeys / 8][4] = {};
#pragma unroll
      for (int d = 0; d < kDim / 16; ++d) {
        uint4 q[kRowTiles];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
          q[m] = ldmatrix_x4(q_address + 16 * m * kStride + 32 * d);
#pragma unroll
        for (int n = 0; n < kStepKeys / 16; ++n) {
          const uint4 k = ldmatrix_x4(keys + 16 * n * kStride + 32 * d);
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            mma_m16n8k16(score[m][2 * n], q[m], k.x, k.y);
            mma_m16n8k16(score[m][2 * n + 1], q[m], k.z, k.w);
          }
        }
      }

      // --- weights ---
      uint32_t weight[kRowTiles][kStepKeys / 8][2];
      const bool masked = key0 + kStepKeys - 1 > all_see;
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        float new_max[2] = {max[m][0], max[m][1]};
#pragma unroll
        for (int n = 0; n < kStepKeys / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            float& s = score[m][n][e];
            s *= scale;
            if (masked && key0 + 8 * n + 2 * (lane % 4) + e % 2 > last_key[m][e / 2]) s = -INFINITY;
            new_max[e / 2] = fmaxf(new_max[e / 2], s);
          }
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          new_max[e] = fmaxf(new_max[e], __shfl_xor_sync(~0u, new_max[e], 1));
          new_max[e] = fmaxf(new_max[e], __shfl_xor_sync(~0u, new_max[e], 2));
          const float rescale = exp2_approximate(max[m][e] - new_max[e]);
          max[m][e] = new_max[e];
          sum[m][e] *= rescale;
#pragma unroll
          for (int n = 0; n < kDim / 8; ++n)
            out[m][n][2 * e] *= rescale, out[m][n][2 * e + 1] *= rescale;
        }
#pragma unroll
        for (int n = 0; n < kStepKeys / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            weight[m][n][e] = pack_bf16(exp2_approximate(score[m][n][2 * e] - new_max[e]),
                                        exp2_approximate(score[m][n][2 * e + 1] - new_max[e]));
            // The sum is that of the rounded weights, so that they come to one.
            const float2 two = bf16_pair(weight[m][n][e]);
            sum[m][e] += two.x + two.y;
          }
        }
      }

      // --- values ---
#pragma unroll
      for (int k = 0; k < kStepKeys / 16; ++k) {
#pragma unroll
        for (int n = 0; n < kDim / 16; ++n) {
          const uint4 v = ldmatrix_x4_trans(values + 16 * k * kStride + 32 * n);
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            const uint4 a = make_uint4(weight[m][2 * k][0], weight[m][2 * k][1],
                                       weight[m][2 * k + 1][0], weight[m][2 * k + 1][1]);
            mma_m16n8k16(out[m][2 * n], a, v.x, v.y);
            mma_m16n8k16(out[m][2 * n + 1], a, v.z, v.w);
          }
        }
      }
    }
  }
  let_next_kernel_start();

  // --- epilogue: through the warp's rows of q, so that stores are 16 bytes wide ---
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float total = sum[m][e];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const float inverse = p.kv.v_scale / total;
      uint8_t* const row = shared.q[warp * Config::kWarpRows + 16 * m + lane / 4 + 8 * e];
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(row + 16 * n + 4 * (lane % 4)) =
            pack_bf16(out[m][n][2 * e] * inverse, out[m][n][2 * e + 1] * inverse);
      }
    }
  }
  __syncwarp();
  const int warp_rows = min(Config::kWarpRows, num_rows - warp * Config::kWarpRows);
  for (int i = lane; i < warp_rows * kChunks; i += 32) {
    const int row = warp * Config::kWarpRows + i / kChunks, chunk = i % kChunks;
    const int2 at = element_of_row(row);
    *reinterpret_cast<uint4*>(p.out + (int64_t{at.x} * p.num_heads + at.y) * kDim + 8 * chunk) =
        *reinterpret_cast<const uint4*>(&shared.q[row][16 * chunk]);
  }
}

}  // namespace braid::kernels

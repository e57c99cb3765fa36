#pragma once

// LoRA in the epilogues of the GEMMs of large batches: expand into the sums, and the shrink of down
// from h. Tokens are rows of mma's A operand, as they are of wgmma's; factors are its B operand.

#include <cstdint>

#include "kernels/common/mma.cuh"
#include "kernels/moe_gemm/large_lora.cuh"
#include "kernels/moe_gemm/sm90_large_shared.cuh"

namespace braid::kernels {

// What one warp of a warpgroup works on: 16 tokens of each block of 64.
struct LargePart {
  int32_t tile_row;    // of the token tile
  int32_t first;       // of the warp's tokens, in the tile
  int32_t num_tiles;   // of rows, that the CTA has
  int32_t tile_index;  // of the warpgroup's among them
  int32_t row_tile;
  int32_t lane;
};

// Whether some of the warp's tokens are in the cell's run.
template <int kBlocks>
__device__ __forceinline__ bool any_token(const LargeCell& cell, const LargePart& part) {
  bool any = false;
#pragma unroll
  for (int m = 0; m < kBlocks; ++m)
    any |= part.first + 64 * m < cell.end && part.first + 64 * m + 16 > cell.begin;
  return any;
}

// sum += u B^T (gate_up) or v B^T (down) of the runs in a stage; tokens that are not theirs count
// as zero.
template <class Config, int kBlocks>
__device__ __forceinline__ void large_expand(const LargeFactors<Config>& header,
                                             const uint8_t* stage, const LargePart& part,
                                             float (&sum)[kBlocks][16][4]) {
  const int row = part.first + part.lane / 4;
  const uint8_t* const ranks =
      stage + row * Config::kRankBytes + part.lane % 4 * (Config::kRankBytes / 4);
#pragma unroll 1
  for (int c = 0; c < header.num_cells; ++c) {
    const LargeCell cell = header.cells[c];
    const bool whole = !cell.is_half;
    if (!any_token<kBlocks>(cell, part)) continue;
    bool any[kBlocks];
    uint4 gate[kBlocks], up[kBlocks];  // of down: v, and the same
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      const int first = part.first + 64 * m;
      any[m] = first < cell.end && first + 16 > cell.begin;
      const auto pick = [&](int n, uint32_t value, bool has) {
        return has && n >= cell.begin && n < cell.end ? value : 0u;
      };
      const int low = row + 64 * m, high = low + 8;
      const uint8_t* const at = ranks + 64 * m * Config::kRankBytes;
      if constexpr (Config::kGateUp) {
        const uint4 a = *reinterpret_cast<const uint4*>(at);
        const uint4 b = *reinterpret_cast<const uint4*>(at + 8 * Config::kRankBytes);
        gate[m] = make_uint4(pick(low, a.x, true), pick(high, b.x, true), pick(low, a.y, whole),
                             pick(high, b.y, whole));
        up[m] = make_uint4(pick(low, a.z, true), pick(high, b.z, true), pick(low, a.w, whole),
                           pick(high, b.w, whole));
      } else {
        const uint2 a = *reinterpret_cast<const uint2*>(at);
        const uint2 b = *reinterpret_cast<const uint2*>(at + 8 * Config::kRankBytes);
        gate[m] = up[m] = make_uint4(pick(low, a.x, true), pick(high, b.x, true),
                                     pick(low, a.y, whole), pick(high, b.y, whole));
      }
    }
    const uint8_t* const factor =
        stage + Config::kFactorsAt + (c * part.num_tiles + part.tile_index) * kExpandStepBytes;
#pragma unroll
    for (int g = 0; g < 8; ++g) {
      const uint4 b = load_fragment<2>(factor + g * (whole ? 512 : 256), whole, part.lane);
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        if (!any[m]) continue;
        mma_m16n8k16(sum[m][2 * g], gate[m], b.x, b.z);
        mma_m16n8k16(sum[m][2 * g + 1], up[m], b.y, b.w);
      }
    }
  }
}

// The part of v that the 64 features of a row tile make, for the runs in a stage. `h` has BF16 of 8
// blocks of 8 features, of which a lane has two, for a token and the eighth after it.
template <class Config, int kBlocks>
__device__ __forceinline__ void large_down_shrink(const MoeLayerParams& p,
                                                  const LargeFactors<Config>& header,
                                                  const uint8_t* stage, const LargePart& part,
                                                  const uint32_t (&h)[kBlocks][8][2]) {
#pragma unroll 1
  for (int c = 0; c < header.num_cells; ++c) {
    const LargeCell cell = header.cells[c];
    if (!any_token<kBlocks>(cell, part)) continue;
    const bool whole = !cell.is_half;
    const uint8_t* const factor =
        stage + (c * part.num_tiles + part.tile_index) * kDownShrinkStepBytes;
    uint4 b[4];
#pragma unroll
    for (int s = 0; s < 4; ++s)
      b[s] = load_fragment<1>(factor + s * (whole ? 512 : 256), whole, part.lane);
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      const int first = part.first + 64 * m;
      if (first >= cell.end || first + 16 <= cell.begin) continue;
      float v[2][4] = {};  // ranks 0..7 and 8..15
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint4 a =
            make_uint4(h[m][2 * s][0], h[m][2 * s][1], h[m][2 * s + 1][0], h[m][2 * s + 1][1]);
        mma_m16n8k16(v[0], a, b[s].x, b[s].z);
        mma_m16n8k16(v[1], a, b[s].y, b[s].w);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int n = first + part.lane / 4 + 8 * i;
        if (n < cell.begin || n >= cell.end) continue;
        float* const to =
            large_v_part(p, header.step, part.tile_row + n, part.row_tile) + part.lane % 4 * 2;
        *reinterpret_cast<float2*>(to) =
            make_float2(v[0][2 * i] * cell.scaling, v[0][2 * i + 1] * cell.scaling);
        if (whole) {
          *reinterpret_cast<float2*>(to + 8) =
              make_float2(v[1][2 * i] * cell.scaling, v[1][2 * i + 1] * cell.scaling);
        }
      }
    }
  }
}

}  // namespace braid::kernels

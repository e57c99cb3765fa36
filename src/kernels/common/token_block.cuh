#pragma once

// What a warpgroup does with 64 tokens as wgmma's A operand and a tile of 128 rows of FP8 weights
// as its B operand. A lane's sums are of two tokens, lane / 4 of its warp's 16 and the eighth after
// it, so that two scales of tokens serve all of them: with weights as the A operand, as in small
// batches, it would need one for every two sums, and reading them from shared memory takes as long
// as the product. The bits are the same.

#include <cstdint>

#include "kernels/common/mma.cuh"
#include "kernels/common/shared_address.cuh"
#include "kernels/common/wgmma.cuh"

namespace braid::kernels {

// 8 rows of weights each: {token, token}, {eighth token after it, the same}, rows 2 * (lane % 4)
// and the next.
using TokenSums = float[16][4];

// Which of its two scales the j-th 8 rows of a tile of weights have.
enum class RowScales { kFirst, kInTurn, kHalves };
constexpr bool has_second_scale(RowScales scales, int j) {
  return scales == RowScales::kInTurn ? j % 2 == 1 : scales == RowScales::kHalves && j >= 8;
}

// sum += tokens * weights of kSteps times 32 columns, in float behind them: the FP8 tensor
// accumulator keeps too few bits for a longer sum. Descriptors of the first columns; scales of the
// lane's first token and of the eighth after it.
template <int kSteps, RowScales kScales>
__device__ __forceinline__ void add_token_product(uint64_t tokens, uint64_t weights,
                                                  const float* token_scales, float2 weight_scale,
                                                  TokenSums& sum) {
  float part[64];
  wgmma_fence();
#pragma unroll
  for (int s = 0; s < kSteps; ++s)
    wgmma_m64k32(part, tokens + s * kWgmmaStep32Bytes, weights + s * kWgmmaStep32Bytes, s > 0);
  wgmma_commit();
  const float x_scale[2] = {token_scales[0], token_scales[8]};
  const float scale[2][2] = {{weight_scale.x * x_scale[0], weight_scale.x * x_scale[1]},
                             {weight_scale.y * x_scale[0], weight_scale.y * x_scale[1]}};
  wgmma_wait<0>();
#pragma unroll
  for (int j = 0; j < 16; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      sum[j][i] += part[4 * j + i] * scale[has_second_scale(kScales, j)][i / 2];
  }
}

// Outputs of a warp on their way out: 16 tokens, 64 of each, rows in different banks.
inline constexpr int kTokenRowStride = 64 * 2 + 16;
inline constexpr int kTokenRowsBytes = 16 * kTokenRowStride;

// The warp's 16 tokens as BF16, through `scratch` of kTokenRowsBytes: store(i, column, eight) gets
// eight neighbouring outputs of token lane / 8 + 4 i from this column on.
template <class Store>
__device__ __forceinline__ void store_token_rows(const TokenSums& sum, uint8_t* scratch, int lane,
                                                 Store store) {
  const uint32_t to = shared_address(scratch) + lane % 16 * kTokenRowStride + lane / 16 * 16;
  const uint8_t* const from = scratch + lane / 8 * kTokenRowStride + lane % 8 * 16;
#pragma unroll
  for (int pass = 0; pass < 2; ++pass) {
    __syncwarp();  // what lay there has been read
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const float(&a)[4] = sum[8 * pass + 2 * q];
      const float(&b)[4] = sum[8 * pass + 2 * q + 1];
      stmatrix_x4(to + 32 * q, pack_bf16(a[0], a[1]), pack_bf16(a[2], a[3]), pack_bf16(b[0], b[1]),
                  pack_bf16(b[2], b[3]));
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      store(i, 64 * pass + lane % 8 * 8,
            *reinterpret_cast<const uint4*>(from + 4 * i * kTokenRowStride));
    }
  }
}

}  // namespace braid::kernels

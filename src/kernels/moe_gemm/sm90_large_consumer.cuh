#pragma once

// A warpgroup that multiplies up to 128 tokens with 128 rows of weights. The two of a CTA share
// tokens, each with weights of its own; in down of large tiles weights, each with its tokens.
//
// Tokens are wgmma's A operand, 64 of them a block (token_block.cuh). Order and form of all sums
// are those of sm90_consumer.cuh, so that a token has the same bits in batches of every size.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/common/mma.cuh"
#include "kernels/common/tiles.h"
#include "kernels/common/token_block.cuh"
#include "kernels/moe_gemm/sm90_large_lora.cuh"
#include "kernels/moe_gemm/sm90_large_producer.cuh"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {

// Element i of lane j of a quad becomes element j of lane i.
__device__ __forceinline__ void transpose_in_quad(uint32_t (&m)[4], int lane) {
#pragma unroll
  for (int step = 2; step > 0; step /= 2) {
    const bool second = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      const uint32_t got = __shfl_xor_sync(kAllLanes, second ? m[i] : m[i + step], step);
      m[i] = second ? got : m[i];
      m[i + step] = second ? m[i + step] : got;
    }
  }
}

template <class Config>
class LargeConsumer {
 public:
  __device__ LargeConsumer(const MoeLayerParams& p, LargeShared<Config>& shared, int warp)
      : p_(p), shared_(shared), group_(warp / 4) {}

  __device__ __forceinline__ void run() {
    const int row_tiles = large_row_tiles<Config>(p_.sizes);
    const int depth =
        (Config::kGateUp ? p_.sizes.hidden_size : p_.sizes.moe_intermediate_size) / 128;
#pragma unroll 1
    while (true) {
      wait_full();
      take_unit();
      if (num_tokens_ == 0) break;
      if (row_tile_ >= row_tiles) {
        skip(depth);
      } else if (num_tokens_ <= 64) {
        tile<1>(depth);
      } else {
        tile<2>(depth);
      }
      ++next_unit_;
      if constexpr (Config::kLora) next_stage_ = uniform(next_stage_);
    }
  }

 private:
  // Of blocks of 64 tokens.
  template <int kBlocks>
  using Sums = TokenSums[kBlocks];

  template <int kBlocks>
  __device__ __forceinline__ void tile(int depth) {
    Sums<kBlocks> sum;
    multiply<kBlocks>(depth, sum);
    take_unit();  // so that it need not stay in registers
    [[maybe_unused]] const bool has_runs = Config::kLora && unit_.num_runs() > 0;
    if constexpr (Config::kLora) {
      if (has_runs) {
        of_factors([&](const LargeFactors<Config>& header, const uint8_t* stage) {
          large_expand<Config, kBlocks>(header, stage, part(), sum);
        });
      }
    }
    if constexpr (Config::kGateUp) {
      uint32_t h[kBlocks][8][2];
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        swiglu(sum[m], h[m]);
        store_h(h[m], m);
      }
      if constexpr (Config::kLora) {
        if (has_runs) {
          of_factors([&](const LargeFactors<Config>& header, const uint8_t* stage) {
            large_down_shrink<Config, kBlocks>(p_, header, stage, part(), h);
          });
        }
      }
    } else {
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) store_pairs(sum[m], m);
    }
  }

  // A unit with no row tile for this warpgroup.
  __device__ __forceinline__ void skip(int depth) {
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
      if (k > 0) wait_full();
      release();
    }
    if constexpr (Config::kLora) {
      if (unit_.num_runs() == 0) return;
      const auto nothing = [](const LargeFactors<Config>&, const uint8_t*) {};
      of_factors(nothing);
      if constexpr (Config::kGateUp) of_factors(nothing);
    }
  }

  // The stages of a factor that follow those of weights.
  template <class Body>
  __device__ __forceinline__ void of_factors(Body body) {
    bool is_last;
#pragma unroll 1
    do {
      wait_full();
      const LargeFactors<Config>& header = shared_.factors[stage()];
      is_last = header.is_last != 0;
      body(header, shared_.stages[stage()]);
      release();
    } while (!is_last);
  }

  // From one lane, so that the compiler knows that all have the same, and computes what follows
  // from it once for the warp: wgmma takes its descriptors from there.
  __device__ __forceinline__ static int uniform(int value) {
    return __shfl_sync(kAllLanes, value, 0);
  }

  __device__ __forceinline__ int unit_slot() const { return next_unit_ % Config::kUnits; }
  __device__ __forceinline__ void take_unit() {
    unit_ = shared_.unit[unit_slot()];
    tile_index_ = unit_.rows() == 2 ? group_ : 0;
    row_tile_ = unit_.row_tile(cluster_rank()) + tile_index_;
    first_ = unit_.rows() == 2 ? unit_.first_token(cluster_rank()) : group_ * kLargeHalfTokens;
    num_tokens_ = min(kLargeHalfTokens, unit_.num_tokens - first_);
  }

  __device__ __forceinline__ int stage() const { return next_stage_ % Config::kStages; }
  __device__ __forceinline__ void wait_full() { shared_.ring.wait_full(next_stage_); }
  __device__ __forceinline__ void release() {
    shared_.ring.release(next_stage_, lane());
    ++next_stage_;
  }

  // Read anew each time: what follows from it would be computed before the loop over tiles, for
  // both sizes at once, and take the registers of the sums.
  __device__ __forceinline__ static int lane() {
    uint32_t thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return static_cast<int>(thread % 32);
  }
  __device__ __forceinline__ static int warp() {
    uint32_t thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return static_cast<int>(thread / 32 % 4);
  }
  __device__ __forceinline__ LargePart part() const {
    return {.tile_row = unit_.first_row,
            .first = first_ + 16 * warp(),
            .num_tiles = unit_.rows(),
            .tile_index = tile_index_,
            .row_tile = row_tile_,
            .lane = lane()};
  }

  // sum = activations * weights, in float for each scale group.
  template <int kBlocks>
  __device__ __forceinline__ void multiply(int depth, Sums<kBlocks>& sum) {
    constexpr int kGroups = Config::kScaleGroups, kSteps = 4 / kGroups;
    const int first_here = Config::kGateUp ? 0 : first_;  // among the CTA's tokens
    const int tokens_at = unit_.rows() * kWeightTileBytes + first_here * 128;
    const int weights_at = tile_index_ * kWeightTileBytes;
    const float2* const w_scales =
        reinterpret_cast<const float2*>(shared_.weight_scales[unit_slot()][tile_index_]);
    // Of a lane's first token; the next group's begin where the tile's tokens end.
    const int scale_at = first_here + 16 * warp() + lane() / 4;
    [[maybe_unused]] const int tokens8 = (unit_.num_tokens + 7) / 8 * 8;
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[m][j][i] = 0.0f;
      }
    }
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
      if (k > 0) wait_full();
      // Tokens have come through the generic proxy.
      if constexpr (Config::kGateUp) fence_proxy_async_shared();
      const uint64_t a = wgmma_descriptor(shared_.stages[stage()] + tokens_at);
      const uint64_t b = wgmma_descriptor(shared_.stages[stage()] + weights_at);
      const float* const x_scales =
          reinterpret_cast<const float*>(shared_.token_scales[stage()]) + scale_at;
      // Rows of gate and of up alternate every 8; of down both have one scale.
      const float2 w_scale = w_scales[k];
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int m = 0; m < kBlocks; ++m) {
          const uint64_t step = g * kSteps * kWgmmaStep32Bytes;
          add_token_product<kSteps, Config::kGateUp ? RowScales::kInTurn : RowScales::kFirst>(
              a + m * kWgmmaStep64Rows + step, b + step, x_scales + 64 * m + (g > 0 ? tokens8 : 0),
              w_scale, sum[m]);
        }
      }
      release();
    }
  }

  // h = silu(gate) * up as BF16.
  __device__ __forceinline__ static void swiglu(const float (&sum)[16][4], uint32_t (&h)[8][2]) {
    const auto silu = [](float x) { return __fdividef(x, 1.0f + __expf(-x)); };
#pragma unroll
    for (int q = 0; q < 8; ++q) {
      const float(&gate)[4] = sum[2 * q];
      const float(&up)[4] = sum[2 * q + 1];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        h[q][i] = pack_bf16(silu(gate[2 * i]) * up[2 * i], silu(gate[2 * i + 1]) * up[2 * i + 1]);
    }
  }

  // q(h) of 64 features into the activation image of the down GEMM. Four lanes have a token.
  __device__ __forceinline__ void store_h(const uint32_t (&h)[8][2], int block) {
    const int tile_tokens8 = (unit_.num_tokens + 7) / 8 * 8, half = row_tile_ % 2;
    const int column = lane() % 4;
    const ActivationImage image =
        activation_image(unit_.first_row, unit_.num_tokens, p_.sizes.moe_intermediate_size / 128,
                         /*scales_per_row=*/2);
    uint8_t* const out = p_.workspace.h_image + image.offset(row_tile_ / 2);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float2 f[8];
      float amax = 0.0f;
#pragma unroll
      for (int q = 0; q < 8; ++q) {
        f[q] = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&h[q][i]));
        amax = fmaxf(amax, fmaxf(fabsf(f[q].x), fabsf(f[q].y)));
      }
      amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, 1));
      amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, 2));
      const float h_scale = e4m3_scale(amax), inverse = 1.0f / h_scale;
      // Two features of 16 and two of the 8 after them; then 16 neighbours in the lane that has
      // them.
      uint32_t codes[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const __nv_fp8x4_e4m3 four(make_float4(f[2 * q].x * inverse, f[2 * q].y * inverse,
                                               f[2 * q + 1].x * inverse, f[2 * q + 1].y * inverse));
        codes[q] = *reinterpret_cast<const uint32_t*>(&four);
      }
      transpose_in_quad(codes, column);
      const uint4 row = make_uint4(
          __byte_perm(codes[0], codes[1], 0x5410), __byte_perm(codes[2], codes[3], 0x5410),
          __byte_perm(codes[0], codes[1], 0x7632), __byte_perm(codes[2], codes[3], 0x7632));
      const int in_group = 64 * block + 16 * warp() + lane() / 4 + 8 * i;
      if (in_group >= num_tokens_) continue;
      const int n = first_ + in_group;
      *reinterpret_cast<uint4*>(out + image.scale_bytes + swizzled(n, 64 * half + 16 * column)) =
          row;
      if (column == i) reinterpret_cast<float*>(out)[half * tile_tokens8 + n] = h_scale;
    }
  }

  // 128 outputs of each pair, as BF16.
  __device__ __forceinline__ void store_pairs(const float (&sum)[16][4], int block) {
    const int in_group = 64 * block + 16 * warp() + lane() / 8;
    Bf16* const out = p_.workspace.pair_out +
                      int64_t{unit_.first_row + first_ + in_group} * p_.sizes.hidden_size +
                      128 * row_tile_;
    store_token_rows(
        sum, shared_.out[4 * group_ + warp()], lane(), [&](int i, int column, const uint4& eight) {
          if (in_group + 4 * i >= num_tokens_) return;
          *reinterpret_cast<uint4*>(out + 4 * i * p_.sizes.hidden_size + column) = eight;
        });
  }

  const MoeLayerParams& p_;
  LargeShared<Config>& shared_;
  int group_;
  uint32_t next_stage_ = 0;  // of all that there have been
  uint32_t next_unit_ = 0;
  LargeUnit<Config::kGateUp> unit_;
  int tile_index_ = 0, row_tile_ = 0;  // of the weights, in the CTA and in the matrix
  int first_ = 0, num_tokens_ = 0;     // of this warpgroup, in the tile
};

}  // namespace braid::kernels

#pragma once

// A warpgroup that multiplies 128 rows of weights with up to 128 tokens. The two of a CTA share the
// tokens of a small tile, each with weights of its own, or the weights of a large one, each with
// half of the tokens: either way every byte that comes is multiplied 128 times.
//
// Order and form of all sums are those of sm90_consumer.cuh, so that a token has the same bits in
// batches of every size.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/common/mma.cuh"
#include "kernels/common/tiles.h"
#include "kernels/moe_gemm/sm90_large_lora.cuh"
#include "kernels/moe_gemm/sm90_large_producer.cuh"
#include "kernels/moe_gemm/sm90_large_wgmma.cuh"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {

// By 32-bit addresses, in the order of the program.
__device__ __forceinline__ float4 load_shared_4(uint32_t address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address));
  return v;
}
__device__ __forceinline__ float2 load_shared_2(uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address));
  return v;
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
      take_unit(shared_.unit[stage()]);
      if (unit_.num_tokens == 0) break;
      if (row_tile_ >= row_tiles) {
#pragma unroll 1
        for (int k = 0; k < depth; ++k) {
          if (k > 0) wait_full();
          release();
        }
        continue;
      }
      // The narrowest product that holds the tokens.
      if (num_tokens_ <= 16) {
        tile<16>(depth);
      } else if (num_tokens_ <= 32) {
        tile<32>(depth);
      } else if (num_tokens_ <= 64) {
        tile<64>(depth);
      } else if (num_tokens_ <= 80) {
        tile<80>(depth);
      } else if (num_tokens_ <= 96) {
        tile<96>(depth);
      } else {
        tile<128>(depth);
      }
    }
  }

 private:
  // Sums of 128 rows and kN tokens: halves of the rows, 8 tokens, a lane's part.
  template <int kN>
  using Sums = float[2][kN / 8][4];

  template <int kN>
  __device__ __forceinline__ void tile(int depth) {
    Sums<kN> sum;
    if constexpr (Config::kLora) {
      group_barrier();  // what lies in scratch has been read
      if (unit_.num_runs() > 0) large_ask_for_ranks(p_, shared_, part(), 0);
    }
    multiply<kN>(depth, sum);
    take_unit(shared_.my_unit[group_]);  // so that it need not stay in registers
    if constexpr (Config::kLora) large_expand(p_, shared_, part(), sum);
    if constexpr (Config::kGateUp) {
      store_h<kN>(sum);
    } else {
      if constexpr (Config::kLora) group_barrier();  // v has been read
      store_pairs<kN>(sum);
    }
  }

  __device__ __forceinline__ void take_unit(const LargeUnit& unit) {
    unit_ = unit;
    const bool two_rows = unit_.two_rows();
    const int half = two_rows ? 0 : (unit_.num_tokens + 15) / 16 * 8;
    row_tile_ = unit_.row_tile(cluster_rank()) + (two_rows ? group_ : 0);
    first_ = group_ * half;
    num_tokens_ = two_rows ? unit_.num_tokens : group_ == 0 ? half : unit_.num_tokens - half;
  }

  __device__ __forceinline__ int stage() const { return next_stage_ % Config::kStages; }
  __device__ __forceinline__ void wait_full() {
    mbarrier_wait(&shared_.full[stage()], next_stage_ / Config::kStages % 2);
  }
  // The warp has read all it needs of the stage.
  __device__ __forceinline__ void release() {
    __syncwarp();
    // Tokens come from both CTAs.
    if (const int to = lane(); to < Config::kCluster) arrive_in_cta(&shared_.empty[stage()], to);
    ++next_stage_;
  }
  __device__ __forceinline__ void group_barrier() { large_group_barrier(group_); }

  // Read anew each time: what follows from it would be computed before the loop over tiles, for all
  // widths at once, and take the registers of the sums.
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
            .first = first_,
            .num_tokens = num_tokens_,
            .num_runs = unit_.num_runs(),
            .row_tile = row_tile_,
            .group = group_,
            .warp = warp(),
            .lane = lane()};
  }

  // sum = weights * activations, in float for each scale group: the FP8 tensor accumulator keeps
  // too few bits for a longer sum.
  template <int kN>
  __device__ __forceinline__ void multiply(int depth, Sums<kN>& sum) {
    constexpr int kGroups = Config::kScaleGroups, kSteps = 4 / kGroups;
    const bool two_rows = unit_.two_rows();
    const int weights_at = two_rows ? group_ * kWeightTileBytes : 0;
    const int tokens_at = (two_rows ? 2 : 1) * kWeightTileBytes + first_ * 128;
    // The scales of all stages come with the first, which others want back.
    group_barrier();
    {
      const int i = 32 * warp() + lane();
      if (i == 0) shared_.my_unit[group_] = unit_;
      if (i < 2 * depth) {
        shared_.my_weight_scales[group_][i] = reinterpret_cast<const float*>(
            shared_.weight_scales[stage()][two_rows ? group_ : 0])[i];
      }
    }
    group_barrier();
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int j = 0; j < kN / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[m][j][i] = 0.0f;
      }
    }
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
      if (k > 0) wait_full();
      const uint64_t a = wgmma_descriptor(shared_.stages[stage()] + weights_at);
      const uint64_t b = wgmma_descriptor(shared_.stages[stage()] + tokens_at);
      float* const scales = shared_.scales[group_][k % 2];
      const uint32_t scales_at = shared_address(scales) + lane() % 4 * (Config::kGateUp ? 16 : 8);
      // Once for all of the warpgroup, while tensor cores work: instructions are what binds.
      const auto multiply_scales = [&] {
        const int n = 32 * warp() + lane();
        const float2 w_scale = reinterpret_cast<const float2*>(shared_.my_weight_scales[group_])[k];
        const float* const x_scale =
            reinterpret_cast<const float*>(shared_.token_scales[stage()]) + first_ + n;
        if (n < kN) {
          if constexpr (Config::kGateUp) {
            reinterpret_cast<float2*>(scales)[n] =
                make_float2(w_scale.x * x_scale[0], w_scale.y * x_scale[0]);
          } else {
            const int tokens8 = (shared_.my_unit[group_].num_tokens + 7) / 8 * 8;
            scales[n] = w_scale.x * x_scale[0];
            scales[kLargeHalfTokens + n] = w_scale.x * x_scale[tokens8];
          }
        }
        group_barrier();
      };
      const auto start = [&](float(&part)[kN / 2], int m, int g) {
        wgmma_fence();
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          const uint64_t step = (g * kSteps + s) * kWgmmaStep32Bytes;
          wgmma_m64k32(part, a + m * kWgmmaStep64Rows + step, b + step, s > 0);
        }
        wgmma_commit();
      };
      const auto add = [&](const float(&part)[kN / 2], int m, int g) {
#pragma unroll
        for (int j = 0; j < kN / 8; ++j) {
          // The upper rows of a fragment are up's in gate_up, which has its own scale.
          float scale[4];
          if constexpr (Config::kGateUp) {
            const float4 of = load_shared_4(scales_at + 64 * j);
            scale[0] = of.x, scale[1] = of.z, scale[2] = of.y, scale[3] = of.w;
          } else {
            const float2 of = load_shared_2(scales_at + 4 * kLargeHalfTokens * g + 32 * j);
            scale[0] = scale[2] = of.x, scale[1] = scale[3] = of.y;
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[m][j][i] += part[4 * j + i] * scale[i];
        }
      };
      if constexpr (kN <= 64) {
        // One part is added up while the next multiplies.
        constexpr int kParts = 2 * kGroups;
        float part[2][kN / 2];
        start(part[0], 0, 0);
        multiply_scales();
#pragma unroll
        for (int q = 0; q < kParts; ++q) {
          if (q + 1 < kParts) {
            start(part[(q + 1) % 2], (q + 1) % 2, (q + 1) / 2);
            wgmma_wait<1>();
          } else {
            wgmma_wait<0>();
          }
          add(part[q % 2], q % 2, q / 2);
        }
      } else {
        // Two would not fit in registers: the other warpgroup multiplies meanwhile.
        float part[kN / 2];
#pragma unroll 1
        for (int g = 0; g < kGroups; ++g) {
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            start(part, m, g);
            if (m == 0 && g == 0) multiply_scales();
            wgmma_wait<0>();
            add(part, m, g);
          }
        }
      }
      release();
    }
  }

  // h = silu(gate) * up of 64 features as BF16, 32 tokens at a time; q(h) into the activation image
  // of the down GEMM.
  template <int kN>
  __device__ __forceinline__ void store_h(const Sums<kN>& sum) {
    const int tile_tokens8 = (unit_.num_tokens + 7) / 8 * 8, half = row_tile_ % 2;
    const ActivationImage image =
        activation_image(unit_.first_row, unit_.num_tokens, p_.sizes.moe_intermediate_size / 128,
                         /*scales_per_row=*/2);
    uint8_t* const out = p_.workspace.h_image + image.offset(row_tile_ / 2);
    uint8_t* const scratch = shared_.scratch[group_];
    const uint32_t to =
        shared_address(scratch) + lane() % 8 * Config::kHStride + lane() / 8 % 2 * 64 + warp() * 16;
    const int thread = warp() * 32 + lane();
#pragma unroll
    for (int pass = 0; pass < (kN + 31) / 32; ++pass) {
      if (Config::kHTokens * pass >= num_tokens_) break;
      [[maybe_unused]] const int mine = Config::kHTokens * pass + 8 * warp();
      group_barrier();  // what lay there has been read
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 4 * pass + i;
        if (j >= kN / 8) break;
        uint32_t h[2];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const float(&s)[4] = sum[m][j];
          const auto silu = [](float x) { return __fdividef(x, 1.0f + __expf(-x)); };
          h[m] = pack_bf16(silu(s[0]) * s[2], silu(s[1]) * s[3]);
        }
        stmatrix_x2_trans(to + i * 8 * Config::kHStride, h[0], h[1]);
      }
      group_barrier();
      // 8 lanes have the 64 features of a token.
#pragma unroll
      for (int i = 0; i < Config::kHTokens / 16; ++i) {
        const int in_pass = thread / 8 + 16 * i, n = Config::kHTokens * pass + in_pass;
        const int feature = thread % 8 * 8;
        const uint4 eight =
            *reinterpret_cast<const uint4*>(scratch + in_pass * Config::kHStride + 2 * feature);
        const uint32_t two[4] = {eight.x, eight.y, eight.z, eight.w};
        float2 f[4];
        float amax = 0.0f;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          f[q] = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&two[q]));
          amax = fmaxf(amax, fmaxf(fabsf(f[q].x), fabsf(f[q].y)));
        }
        for (int step = 4; step > 0; step /= 2)
          amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, step));
        const float h_scale = e4m3_scale(amax), inverse = 1.0f / h_scale;
        __nv_fp8x4_e4m3 codes[2];
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          codes[q] =
              __nv_fp8x4_e4m3(make_float4(f[2 * q].x * inverse, f[2 * q].y * inverse,
                                          f[2 * q + 1].x * inverse, f[2 * q + 1].y * inverse));
        }
        if (n >= num_tokens_) continue;
        *reinterpret_cast<uint2*>(out + image.scale_bytes +
                                  swizzled(first_ + n, 64 * half + feature)) =
            *reinterpret_cast<const uint2*>(codes);
        if (feature == 0) reinterpret_cast<float*>(out)[half * tile_tokens8 + first_ + n] = h_scale;
      }
      if constexpr (Config::kLora)
        large_down_shrink(p_, shared_, part(), shared_address(scratch), mine);
    }
  }

  // 128 outputs of each pair, as BF16.
  template <int kN>
  __device__ __forceinline__ void store_pairs(const Sums<kN>& sum) {
    uint8_t* const scratch = shared_.scratch[group_] + warp() * 8 * Config::kOutStride;
    const uint32_t in = shared_address(scratch) + lane() % 8 * Config::kOutStride + lane() / 8 * 16;
    const uint8_t* const out = scratch + lane() / 4 * Config::kOutStride + lane() % 4 * 16;
    const int column = 128 * row_tile_ + lane() / 2 % 2 * 64 + warp() * 16 + lane() % 2 * 8;
    Bf16* to = p_.workspace.pair_out +
               int64_t{unit_.first_row + first_ + lane() / 4} * p_.sizes.hidden_size + column;
#pragma unroll
    for (int j = 0; j < kN / 8; ++j) {
      if (8 * j >= num_tokens_) break;
      const float(&s0)[4] = sum[0][j];
      const float(&s1)[4] = sum[1][j];
      __syncwarp();
      stmatrix_x4_trans(in, pack_bf16(s0[0], s0[1]), pack_bf16(s0[2], s0[3]),
                        pack_bf16(s1[0], s1[1]), pack_bf16(s1[2], s1[3]));
      __syncwarp();
      if (8 * j + lane() / 4 < num_tokens_)
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(out);
      to += 8 * p_.sizes.hidden_size;
    }
  }

  const MoeLayerParams& p_;
  LargeShared<Config>& shared_;
  int group_;
  uint32_t next_stage_ = 0;  // of all that there have been
  LargeUnit unit_;
  int row_tile_ = 0;
  int first_ = 0, num_tokens_ = 0;  // of this warpgroup, in the tile
};

}  // namespace braid::kernels

#pragma once

// The warpgroup that multiplies: weights are wgmma's A operand (128 rows), tokens its B operand, so
// that a tile of a few tokens costs no more than its bytes; NVFP4 weights, decoded in registers,
// and LoRA enter by mma, into the same accumulators.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/common/counter.cuh"
#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/common/quantize_128.cuh"
#include "kernels/common/wgmma.cuh"
#include "kernels/moe_gemm/sm90_nvfp4.cuh"
#include "kernels/moe_gemm/sm90_producer.cuh"

namespace braid::kernels {

__device__ __forceinline__ void consumer_barrier() {
  asm volatile("bar.sync 1, 128;" ::: "memory");
}

template <class Config>
class Consumer {
 public:
  static constexpr int kColumnTiles = Config::kColumnTiles;

  __device__ Consumer(const MoeLayerParams& p, GemmShared<Config>& shared, int warp, int lane)
      : p_(p),
        shared_(shared),
        ring_{shared},
        warp_(warp),
        lane_(lane),
        row_(lane / 4),
        column_(2 * (lane % 4)) {}

  // All there is to do, as the headers say.
  __device__ void run() {
#pragma unroll 1
    while (true) {
      ring_.wait_full();
      switch (ring_.header().kind) {
        case StageKind::kWeights:
          weight_tile();
          break;
        case StageKind::kShrink:
          if constexpr (Config::kLora && Config::kGateUp) shrink();
          break;
        case StageKind::kSkip: {
          const int num_stages = ring_.header().num_stages;
#pragma unroll 1
          for (int i = 0; i < num_stages; ++i) {
            if (i > 0) ring_.wait_full();
            ring_.release(lane_);
          }
          break;
        }
        case StageKind::kEnd:
          if constexpr (Config::kTellsTiles) {
            if (lane_ == 0) count_release(&p_.workspace.counts->gate_up_done);
          }
          return;
      }
    }
  }

  // Quantises the tokens of a small batch, which come as the first stage: a warp takes 128 elements
  // of one.
  __device__ __forceinline__ void quantize_x() {
    const int hidden = p_.sizes.hidden_size, depth = hidden / 128;
    uint8_t* const image = shared_.x_image(hidden);
    ring_.wait_full();
    int column = 0, k = warp_;
#pragma unroll 4
    for (int g = warp_; g < p_.num_tokens * depth; g += 4) {
      while (k >= depth) k -= depth, ++column;
      const uint2 four = *reinterpret_cast<const uint2*>(
          ring_.data() + (column * hidden + k * 128 + 4 * lane_) * 2);
      const Quantized128 q = quantize_128(four);
      *reinterpret_cast<__nv_fp8x4_e4m3*>(image + k * 128 * Config::kTokens +
                                          swizzled(column, 4 * lane_)) = q.codes;
      if (lane_ == 0) shared_.x_scale[k * Config::kTokens + column] = q.scale;
      k += 4;
    }
    ring_.release(lane_);
    fence_proxy_async_shared();
    consumer_barrier();
  }

 private:
  // u[token, row of A] = scaling * sum_k A[row, k] x[token, k] over each part. A warp takes 16
  // rows; where there are 32 or less, two warps share them, each with every other 16 columns.
  __device__ __forceinline__ void shrink() {
    const StageHeader& first = ring_.header();
    const int first_row = first.first_row, num_tokens = first.num_tokens, slab = first.index;
    const int rows = first.num_slab_rows, rank = first.rank, one_a = first.one_a;
    const int first_part = first.first_part, num_parts = first.num_parts;
    const int ready_index = first.ready_index;
    const float scaling_gate = first.scaling_gate, scaling_up = first.scaling_up;
    const int columns = p_.sizes.hidden_size / kShrinkParts;
    const int depth = first.depth;
    const bool in_pairs = rows <= 32;
    const int group = in_pairs ? warp_ / 2 : warp_, second = in_pairs ? warp_ % 2 : 0;
    const int my_rows = min(16, rows - 16 * group);
#pragma unroll 1
    for (int part = first_part; part < first_part + num_parts; ++part) {
      float d[kColumnTiles][4] = {};
#pragma unroll 1
      for (int k = 0; k < columns; k += depth) {
        if (k > 0 || part > first_part) ring_.wait_full();
        if (my_rows > 0) {
          const int num_steps = min(depth, columns - k) / 16;
          const int step = in_pairs ? 2 : 1, begin = in_pairs ? (k / 16 + second) % 2 : 0;
          const int mine = (num_steps - begin + step - 1) / step;
          const int x_stride = shrink_x_stride(depth);
          const uint8_t* a = ring_.data() + group * 512 + begin * 32 * rows;
          const uint32_t b = shared_address(ring_.data() + 2 * depth * rows + lane_ % 8 * x_stride +
                                            lane_ / 8 % 2 * 16 + 32 * begin);
          if (my_rows <= 8) {
            shrink_steps<kColumnTiles, 8>(d, a, 32 * rows, b, x_stride, num_tokens, mine, step);
          } else if (kColumnTiles > 1 && num_tokens <= 8) {
            shrink_steps<1, 16>(d, a, 32 * rows, b, x_stride, num_tokens, mine, step);
          } else if (kColumnTiles > 2 && num_tokens <= 16) {
            shrink_steps<2, 16>(d, a, 32 * rows, b, x_stride, num_tokens, mine, step);
          } else {
            shrink_steps<kColumnTiles, 16>(d, a, 32 * rows, b, x_stride, num_tokens, mine, step);
          }
        }
        ring_.release(lane_);
      }
      if (in_pairs) {
        float4* const other = reinterpret_cast<float4*>(shared_.scratch) + group * 32 + lane_;
        consumer_barrier();  // what lay there has been read
        if (second == 1) {
#pragma unroll
          for (int j = 0; j < kColumnTiles; ++j)
            if (8 * j < num_tokens) other[64 * j] = make_float4(d[j][0], d[j][1], d[j][2], d[j][3]);
        }
        consumer_barrier();
        if (second == 1) continue;
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          if (8 * j >= num_tokens) break;
          const float4 add = other[64 * j];
          d[j][0] += add.x, d[j][1] += add.y, d[j][2] += add.z, d[j][3] += add.w;
        }
      }
      if (my_rows <= 0) continue;
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = 8 * j + column_ + i % 2, in_tile = row_ + i / 2 * 8;
          if (n >= num_tokens || in_tile >= my_rows) continue;
          const int r = 64 * slab + 16 * group + in_tile;
          const auto store = [&](int rank_row, int of_up, float value) {
            u_of(p_, rank_row / 16,
                 first_row + n)[(of_up * kShrinkParts + part) * 16 + rank_row % 16] = value;
          };
          if (one_a || r < rank) store(r, 0, d[j][i] * scaling_gate);
          if (one_a || r >= rank) store(one_a ? r : r - rank, 1, d[j][i] * scaling_up);
        }
      }
    }
    if (my_rows <= 0 || second == 1) return;
    __syncwarp();
    if (lane_ == 0) count_release(p_.workspace.run_ready + ready_index, num_parts);
  }

  // d += A x over num_steps steps of 16 columns, each `step` of them on, for up to kActive tiles of
  // 8 tokens. No branch within, so that the loads of several steps are under way at once.
  template <int kActive, int kRows>
  __device__ __forceinline__ void shrink_steps(float (&d)[kColumnTiles][4], const uint8_t* a,
                                               int a_bytes, uint32_t x, int x_stride,
                                               int num_tokens, int num_steps, int step) {
    constexpr int kTiles = kActive < kColumnTiles ? kActive : kColumnTiles;
    uint32_t of_tile[kTiles];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) of_tile[j] = 8 * j < num_tokens ? j * 8 * x_stride : 0;
    a += lane_ * kRows;
#pragma unroll 4
    for (int i = 0; i < num_steps; ++i) {
      const uint4 fragment = load_fragment<1>(a, kRows == 16);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const uint2 b = ldmatrix_x2(x + of_tile[j]);
        mma_m16n8k16(d[j], fragment, b.x, b.y);
      }
      a += step * a_bytes;
      x += step * 32;
    }
  }

  __device__ __forceinline__ void weight_tile() {
    const int num_stages =
        (Config::kGateUp ? p_.sizes.hidden_size : p_.sizes.moe_intermediate_size) /
        Config::kStageColumns;
    ring_.wait_full();
    first_row_ = ring_.header().first_row;
    num_tokens_ = ring_.header().num_tokens;
    index_ = ring_.header().index;
    // The scales of all stages come with the first.
    float2 my_scales[2];  // FP8: lane i keeps those of stages i and i + 32; NVFP4: of the matrices
    if constexpr (Config::kFp8) {
      const float2* const w_scales =
          reinterpret_cast<const float2*>(ring_.data() + Config::kScaleOffset);
      my_scales[0] = w_scales[min(lane_, num_stages - 1)];
      my_scales[1] = w_scales[min(lane_ + 32, num_stages - 1)];
    } else if constexpr (Config::kNvfp4) {
      my_scales[0] = *reinterpret_cast<const float2*>(ring_.header().global_scales);
    }
    const int shrink_at = ring_.header().shrink_at;
    int num_expand_cells = 0, num_down_cells = 0;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum_[m][j][i] = 0.0f;
      }
    }
#pragma unroll 1
    for (int k = 0; k < num_stages; ++k) {
      if (k > 0) ring_.wait_full();
      if constexpr (Config::kShrinksInTile) {
        if (k == shrink_at) {
#pragma unroll 1
          while (ring_.header().kind == StageKind::kShrink) {
            shrink();
            ring_.wait_full();
          }
        }
      }
      if (Config::kLora && k == num_stages - 1) {
        num_expand_cells = ring_.header().num_expand_cells;
        num_down_cells = ring_.header().num_down_cells;
      }
      if constexpr (Config::kFp8) {
        const float2 from = k < 32 ? my_scales[0] : my_scales[1];
        multiply_fp8(k, make_float2(__shfl_sync(kAllLanes, from.x, k % 32),
                                    __shfl_sync(kAllLanes, from.y, k % 32)));
      } else if constexpr (Config::kNvfp4) {
        multiply_nvfp4((num_tokens_ + 7) / 8 * 8 * 128, swizzled(lane_ % 8, lane_ / 8 * 16));
      } else {
        multiply_bf16();
      }
      ring_.release(lane_);
    }
    if constexpr (Config::kNvfp4) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sum_[m][j][i] *= i < 2 ? my_scales[0].x : my_scales[0].y;
        }
      }
    }
    if constexpr (Config::kLora) expand(num_expand_cells);
    if constexpr (Config::kRaw) {
      store_raw();
    } else if constexpr (Config::kGateUp) {
      swiglu();
      store_h();
      if constexpr (Config::kLora) down_shrink(num_down_cells);
      if constexpr (Config::kTellsTiles) {
        __syncwarp();
        if (lane_ == 0) count_release(p_.workspace.h_ready + first_row_ / 8);
      }
    } else {
      store_pairs();
    }
  }

  // One lane's part of a packed 16 x 16 fragment; the half form has 8 rows (kHalfOf = 1) or 8
  // columns (kHalfOf = 2) and half the bytes.
  template <int kHalfOf>
  __device__ __forceinline__ static uint4 load_fragment(const uint8_t* at, bool whole) {
    if (whole) return *reinterpret_cast<const uint4*>(at);
    const uint2 half = *reinterpret_cast<const uint2*>(at);
    if constexpr (kHalfOf == 1) return make_uint4(half.x, 0, half.y, 0);
    return make_uint4(half.x, half.y, 0, 0);
  }

  // sum_ += weights * activations of one stage, in float for each scale group: the FP8 tensor
  // accumulator keeps too few bits for a longer sum.
  __device__ __forceinline__ void multiply_fp8(int k, float2 w_scale) {
    constexpr int kGroups = Config::kScaleGroups, kSteps = 4 / kGroups;
    // One for the warp, so that descriptors are computed in uniform registers.
    const uint8_t* const data = shared_.ring + __shfl_sync(kAllLanes, ring_.header().offset, 0);
    const int tokens8 = (num_tokens_ + 7) / 8 * 8;
    const int scale_bytes = activation_image(0, num_tokens_, 1, kGroups).scale_bytes;
    const float* const x_scale =
        Config::kSmallBatch
            ? shared_.x_scale + k * Config::kTokens
            : reinterpret_cast<const float*>(data + Config::kRowsOffset - scale_bytes);
    const uint64_t a = wgmma_descriptor(data);
    const uint64_t b = wgmma_descriptor(
        Config::kSmallBatch ? shared_.x_image(p_.sizes.hidden_size) + k * 128 * Config::kTokens
                            : data + Config::kRowsOffset);
    // Two parts, of which one is added up while the other multiplies: the halves of the rows in
    // gate_up, the scale groups in the down GEMM.
    constexpr int kHalves = Config::kGateUp ? 1 : 2;
    float part[2][kHalves][kColumnTiles * 4];
    const auto multiply = [&](int q) {
      wgmma_fence();
#pragma unroll
      for (int m = 0; m < kHalves; ++m) {
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          const uint64_t step = ((Config::kGateUp ? 0 : q * kSteps) + s) * kWgmmaStep32Bytes;
          const int half = Config::kGateUp ? q : m;
          wgmma_m64k32(part[q][m], a + half * kWgmmaStep64Rows + step, b + step, s > 0);
        }
      }
      wgmma_commit();
    };
    const auto add = [&](int q) {
      const int g = Config::kGateUp ? 0 : q;
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        if (8 * j >= num_tokens_) break;
        const float2 x = *reinterpret_cast<const float2*>(x_scale + g * tokens8 + 8 * j + column_);
        // The upper rows of a fragment are up's in gate_up, which has its own scale.
        const float scale[4] = {w_scale.x * x.x, w_scale.x * x.y, w_scale.y * x.x, w_scale.y * x.y};
#pragma unroll
        for (int m = 0; m < kHalves; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i)
            sum_[Config::kGateUp ? q : m][j][i] += part[q][m][4 * j + i] * scale[i];
        }
      }
    };
    if constexpr (Config::kTokens <= 32) {
      multiply(0);
      multiply(1);
      wgmma_wait<1>();
      add(0);
      wgmma_wait<0>();
      add(1);
    } else {
      // Both would not fit in registers.
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        multiply(q);
        wgmma_wait<0>();
        add(q);
      }
    }
  }

  // Half m of the rows' sums as wgmma has them.
  __device__ __forceinline__ float (&sum_of(int m))[kColumnTiles * 4] {
    return reinterpret_cast<float(&)[kColumnTiles * 4]>(sum_[m]);
  }

  __device__ __forceinline__ void multiply_bf16() {
    const uint64_t a = wgmma_descriptor(ring_.data());
    const uint64_t b = wgmma_descriptor(ring_.data() + Config::kRowsOffset);
    wgmma_fence();
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint64_t step = s * kWgmmaStep32Bytes;
        wgmma_m64k16(sum_of(m), a + m * kWgmmaStep64Rows + step, b + step, /*accumulate=*/1);
      }
    }
    wgmma_commit();
    wgmma_wait<0>();
  }

  // By mma: wgmma with weights from registers takes longer for as few tokens as there are, and so
  // does waiting for it. `x_of_lane` is the lane's place in each of the stage's two images.
  __device__ __forceinline__ void multiply_nvfp4(int image_bytes, int x_of_lane) {
    const uint8_t* const data = ring_.data();
    const int thread = warp_ * 32 + lane_;
    const uint2 packed = *reinterpret_cast<const uint2*>(data + kNvfp4CodeBytes + thread * 8);
    const Nvfp4Scales scales[2] = {Nvfp4Scales(packed.x), Nvfp4Scales(packed.y)};
    const uint32_t rows = shared_address(data) + Config::kRowsOffset + x_of_lane;
#pragma unroll
    for (int image = 0; image < 2; ++image) {
      uint4 a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        decode_nvfp4_quarter(data + (2 * m + image) * kNvfp4QuarterBytes + thread * 16, scales[m],
                             a[m]);
      }
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        if (j > 0 && 8 * j >= num_tokens_) break;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // 32 columns further on is the other half of the row, by the swizzle.
          const uint4 x = ldmatrix_x4((rows + image * image_bytes + 1024 * j) ^ 64 * i);
#pragma unroll
          for (int m = 0; m < 2; ++m) mma_m16n8k16(sum_[m][j], a[m][2 * i], x.x, x.y);
#pragma unroll
          for (int m = 0; m < 2; ++m) mma_m16n8k16(sum_[m][j], a[m][2 * i + 1], x.z, x.w);
        }
      }
    }
  }

  // sum_ += B u (gate_up) or B v (down): every run's B times its tokens' columns, the others zero.
  __device__ __forceinline__ void expand(int total) {
    uint32_t gate[kColumnTiles][2], up[kColumnTiles][2];  // of down: v, and nothing
    int num_cells = 0;
#pragma unroll 1
    for (int done = 0; done < total; done += num_cells) {
      ring_.wait_full();
      if (ring_.header().num_cells == 0) {
        if constexpr (Config::kGateUp) {
          load_parts(kURowFloats, kShrinkParts, 0, gate);
          load_parts(kURowFloats, kShrinkParts, 16 * kShrinkParts, up);
        } else {
          const int num_parts = p_.sizes.moe_intermediate_size / 64;
          load_parts(parts_row_floats(num_parts), num_parts, 0, gate);
        }
        ring_.release(lane_);
        ring_.wait_full();
      }
      num_cells = ring_.header().num_cells;
#pragma unroll 1
      for (int c = 0; c < num_cells; ++c) {
        const FactorCell cell = ring_.header().cells[c];
        const bool whole = !cell.is_half;
        const int bytes = whole ? 16 : 8;
        const uint8_t* at = ring_.data() + c * kExpandStepBytes + (warp_ * 32 + lane_) * bytes;
        const uint4 b0 = load_fragment<2>(at, whole);
        const uint4 b1 = load_fragment<2>(at + 128 * bytes, whole);
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          if (8 * j >= cell.end || 8 * j + 8 <= cell.begin) continue;
          const int n = 8 * j + row_;
          const bool mine = n >= cell.begin && n < cell.end;
          const auto pick = [&](uint32_t value, bool has) { return mine && has ? value : 0u; };
          const uint32_t g0 = pick(gate[j][0], true), g1 = pick(gate[j][1], whole);
          if constexpr (Config::kGateUp) {
            const uint32_t u0 = pick(up[j][0], true), u1 = pick(up[j][1], whole);
            mma_m16n8k16(sum_[0][j], make_uint4(b0.x, 0, b0.z, 0), g0, g1);
            mma_m16n8k16(sum_[1][j], make_uint4(b1.x, 0, b1.z, 0), g0, g1);
            mma_m16n8k16(sum_[0][j], make_uint4(0, b0.y, 0, b0.w), u0, u1);
            mma_m16n8k16(sum_[1][j], make_uint4(0, b1.y, 0, b1.w), u0, u1);
          } else {
            mma_m16n8k16(sum_[0][j], b0, g0, g1);
            mma_m16n8k16(sum_[1][j], b1, g0, g1);
          }
        }
      }
      ring_.release(lane_);
    }
  }

  // A step's 16 ranks of u or v from the open stage: a token's parts added up in their order.
  __device__ __forceinline__ void load_parts(int row_floats, int num_parts, int offset,
                                             uint32_t (&sums)[kColumnTiles][2]) {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
      const int n = min(8 * j + row_, num_tokens_ - 1);
      const float* at =
          reinterpret_cast<const float*>(ring_.data()) + n * row_floats + offset + column_;
      float2 low = {}, high = {};
#pragma unroll 4
      for (int i = 0; i < num_parts; ++i, at += 16) {
        const float2 a = *reinterpret_cast<const float2*>(at);
        const float2 b = *reinterpret_cast<const float2*>(at + 8);
        low.x += a.x, low.y += a.y, high.x += b.x, high.y += b.y;
      }
      sums[j][0] = pack_bf16(low.x, low.y), sums[j][1] = pack_bf16(high.x, high.y);
    }
  }

  // Gate and up of 64 features as they are; 8 lanes write 32 bytes of a token.
  __device__ __forceinline__ void store_raw() {
    const int width = p_.sizes.moe_intermediate_size;
    float* const out = p_.workspace.gate_up + 64 * index_ + 8 * warp_ + row_;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = 8 * j + column_ + i % 2;
        if (n >= num_tokens_) continue;
        float* const at = out + (int64_t{2} * (first_row_ + n) + i / 2) * width;
        at[0] = sum_[0][j][i];
        at[32] = sum_[1][j][i];
      }
    }
  }

  // h = silu(gate) * up, as BF16 [tokens, 64] into shared memory.
  __device__ __forceinline__ void swiglu() {
    consumer_barrier();  // the tile before has been read
    const uint32_t at = shared_address(shared_.scratch) + lane_ % 8 * Config::kHStride +
                        lane_ / 8 % 2 * 64 + warp_ * 16;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
      uint32_t h[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const float(&s)[4] = sum_[m][j];
        const auto silu = [](float x) { return __fdividef(x, 1.0f + __expf(-x)); };
        h[m] = pack_bf16(silu(s[0]) * s[2], silu(s[1]) * s[3]);
      }
      stmatrix_x2_trans(at + j * 8 * Config::kHStride, h[0], h[1]);
    }
    consumer_barrier();
  }

  // q(h) into the activation image of the down GEMM: this tile's 64 features of 128.
  __device__ __forceinline__ void store_h() {
    const int tokens8 = (num_tokens_ + 7) / 8 * 8, half = index_ % 2;
    const ActivationImage image =
        activation_image(Config::kFormat, first_row_, num_tokens_, p_.sizes.moe_intermediate_size,
                         /*scales_per_row=*/2);
    uint8_t* const out = p_.workspace.h_image + image.offset(Config::kFp8 ? index_ / 2 : index_);
    for (int i = warp_ * 32 + lane_; i < tokens8 * 16; i += Config::kConsumers) {
      const int n = i / 16, feature = i % 16 * 4;
      const uint8_t* const row = shared_.scratch + n * Config::kHStride;
      if constexpr (Config::kNvfp4) {
        // Features j, 16 + j, 32 + j and 48 + j stand together (nvfp4_place).
        const int j = i % 16;
        const auto pair = [&](int first) {
          const auto of = [&](int f) { return *reinterpret_cast<const uint16_t*>(row + 2 * f); };
          return of(first) | uint32_t{of(first + 16)} << 16;
        };
        uint8_t* const to = out + (j / 8 - half) * image.depth_bytes;
        *reinterpret_cast<uint2*>(to + swizzled(n, j % 8 * 16 + 8 * half)) =
            make_uint2(pair(j), pair(j + 32));
        continue;
      }
      const uint2 four = *reinterpret_cast<const uint2*>(row + 2 * feature);
      if constexpr (Config::kFormat == WeightFormat::kBf16) {
        *reinterpret_cast<uint2*>(out + swizzled(n, 2 * feature)) = four;
        continue;
      }
      const float2 low = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.x));
      const float2 high = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.y));
      float amax = fmaxf(fmaxf(fabsf(low.x), fabsf(low.y)), fmaxf(fabsf(high.x), fabsf(high.y)));
      for (int step = 8; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
      const float h_scale = e4m3_scale(amax), inverse = 1.0f / h_scale;
      *reinterpret_cast<__nv_fp8x4_e4m3*>(out + image.scale_bytes +
                                          swizzled(n, 64 * half + feature)) =
          __nv_fp8x4_e4m3(
              make_float4(low.x * inverse, low.y * inverse, high.x * inverse, high.y * inverse));
      if (feature == 0) reinterpret_cast<float*>(out)[half * tokens8 + n] = h_scale;
    }
  }

  // v[token, tile, rank] = scaling * sum over the tile's features of A[rank, f] h[token, f]; the
  // warps take cells in turn.
  __device__ __forceinline__ void down_shrink(int total) {
    const uint32_t h =
        shared_address(shared_.scratch) + lane_ % 8 * Config::kHStride + lane_ / 8 % 2 * 16;
    int num_cells = 0;
#pragma unroll 1
    for (int done = 0; done < total; done += num_cells) {
      ring_.wait_full();
      num_cells = ring_.header().num_cells;
#pragma unroll 1
      for (int c = warp_; c < num_cells; c += 4) {
        const FactorCell cell = ring_.header().cells[c];
        const float scaling = ring_.header().scaling[c];
        const bool whole = !cell.is_half;
        const uint8_t* at = ring_.data() + c * kDownShrinkStepBytes + lane_ * (whole ? 16 : 8);
        uint4 a[4];
#pragma unroll
        for (int s = 0; s < 4; ++s) a[s] = load_fragment<1>(at + s * (whole ? 512 : 256), whole);
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          if (8 * j >= cell.end || 8 * j + 8 <= cell.begin) continue;
          float d[4] = {};
#pragma unroll
          for (int s = 0; s < 4; ++s) {
            const uint2 b = ldmatrix_x2(h + j * 8 * Config::kHStride + 32 * s);
            mma_m16n8k16(d, a[s], b.x, b.y);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int n = 8 * j + column_ + i % 2;
            if (n < cell.begin || n >= cell.end || (i >= 2 && !whole)) continue;
            v_of(p_, cell.step, first_row_ + n)[16 * index_ + row_ + i / 2 * 8] = d[i] * scaling;
          }
        }
      }
      ring_.release(lane_);
    }
  }

  // 128 outputs of each pair, as BF16.
  __device__ __forceinline__ void store_pairs() {
    uint8_t* const scratch = shared_.scratch + warp_ * 8 * Config::kOutStride;
    const uint32_t in = shared_address(scratch) + lane_ % 8 * Config::kOutStride + lane_ / 8 * 16;
    const uint8_t* const out = scratch + lane_ / 4 * Config::kOutStride + lane_ % 4 * 16;
    const int column = 128 * index_ + lane_ / 2 % 2 * 64 + warp_ * 16 + lane_ % 2 * 8;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
      const float(&s0)[4] = sum_[0][j];
      const float(&s1)[4] = sum_[1][j];
      __syncwarp();
      stmatrix_x4_trans(in, pack_bf16(s0[0], s0[1]), pack_bf16(s0[2], s0[3]),
                        pack_bf16(s1[0], s1[1]), pack_bf16(s1[2], s1[3]));
      __syncwarp();
      const int n = 8 * j + lane_ / 4;
      if (n < num_tokens_) {
        Bf16* to = p_.workspace.pair_out + int64_t{first_row_ + n} * p_.sizes.hidden_size + column;
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(out);
      }
    }
  }

  const MoeLayerParams& p_;
  GemmShared<Config>& shared_;
  RingReader<Config> ring_;
  int warp_, lane_;
  int row_, column_;  // of a lane in a fragment
  int first_row_ = 0, num_tokens_ = 0, index_ = 0;
  float sum_[2][kColumnTiles][4];
};

}  // namespace braid::kernels

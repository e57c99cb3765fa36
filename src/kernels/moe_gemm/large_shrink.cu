// The shrink of gate_up in large batches: u = x A^T of every run by a CTA for 64 tokens, left
// scaled, as BF16, in the order in which the GEMM reads it.
//
// Sums are those of sm90_consumer.cuh: H is cut into four parts; where a slab has 32 rows or less,
// even and odd steps of 16 columns have sums of their own.

#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/common/async_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/moe_gemm/large_lora.cuh"

namespace braid::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kStages = 3;
constexpr int kColumns = 128;  // of a stage
constexpr int kXStride = 2 * kColumns + 16;
constexpr int kTokens = kLargeShrinkTokens;
// Two warps share 16 rows where there are 32 or less, each with 16 tokens and every other step;
// otherwise a warp has 16 rows and 32 tokens.
constexpr int kPairTiles = 2, kTiles = 4;  // of 8 tokens

struct ShrinkShared {
  alignas(16) uint8_t a[kStages][64 * kColumns * 2];
  alignas(16) uint8_t x[kStages][kTokens * kXStride];
  float4 odd[4][2 * kPairTiles][32];  // sums of the warps with odd steps
};

__device__ __forceinline__ uint4 load_shared_fragment(const uint8_t* fragment, bool whole,
                                                      int lane) {
  if (whole) return *(reinterpret_cast<const uint4*>(fragment) + lane);
  const uint2 half = *(reinterpret_cast<const uint2*>(fragment) + lane);
  return make_uint4(half.x, 0, half.y, 0);
}

class Shrink {
 public:
  __device__ Shrink(const MoeLayerParams& p, ShrinkShared& shared, const MoeShrinkItem& item)
      : p_(p),
        shared_(shared),
        item_(item),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        rows_(slab_rows(item.one_a ? item.rank : 2 * item.rank, item.slab)),
        part_columns_(p.sizes.hidden_size / kShrinkParts),
        stages_per_part_((part_columns_ + kColumns - 1) / kColumns) {
    // A thread copies 16 bytes of every 16th token.
    for (int i = 0; i < kTokens / 16; ++i) {
      const int n = min(static_cast<int>(threadIdx.x) / 16 + 16 * i, item.num_tokens - 1);
      from_[i] = p.x + int64_t{__ldcg(p.workspace.token_of_row + item.first_row + n)} *
                           p.sizes.hidden_size;
    }
  }

  __device__ void run() {
    const int num_stages = kShrinkParts * stages_per_part_;
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < num_stages) load(i);
      async_copy_commit();
    }
    const bool in_pairs = rows_ <= 32;
    float sum[2][kTiles][4] = {}, u[2][kTiles][4] = {};
#pragma unroll 1
    for (int i = 0; i < num_stages; ++i) {
      async_copy_wait<kStages - 2>();
      __syncthreads();
      if (i + kStages - 1 < num_stages) load(i + kStages - 1);
      async_copy_commit();
      const int columns = columns_of(i);
      if (in_pairs) {
        multiply<2, kPairTiles>(sum, i % kStages, columns, warp_ / 4, 2, 0, warp_ % 4 * 16);
      } else {
        multiply<1, kTiles>(sum, i % kStages, columns, 0, 1, warp_ / 2, warp_ % 2 * 32);
      }
      if ((i + 1) % stages_per_part_ == 0) end_part(in_pairs, sum, u);
    }
    if (in_pairs) {
      if (warp_ < 4) store<2, kPairTiles>(u, 0, warp_ % 4 * 16);
    } else {
      store<1, kTiles>(u, warp_ / 2, warp_ % 2 * 32);
    }
    __syncthreads();  // before the next item's loads
  }

 private:
  __device__ int columns_of(int stage) const {
    return min(kColumns, part_columns_ - stage % stages_per_part_ * kColumns);
  }

  __device__ __forceinline__ void load(int stage) {
    const int column =
        stage / stages_per_part_ * part_columns_ + stage % stages_per_part_ * kColumns;
    const int columns = columns_of(stage), at = stage % kStages;
    const uint8_t* const a = item_.factor + int64_t{column} * rows_ * 2;
    const uint32_t to_a = shared_address(shared_.a[at]), to_x = shared_address(shared_.x[at]);
    for (int i = 16 * threadIdx.x; i < columns * rows_ * 2; i += 16 * kThreads)
      async_copy_16(to_a + i, a + i, true);
    const int byte = threadIdx.x % 16 * 16;
    if (byte >= 2 * columns) return;
#pragma unroll
    for (int i = 0; i < kTokens / 16; ++i) {
      const int n = threadIdx.x / 16 + 16 * i;
      async_copy_16(to_x + n * kXStride + byte,
                    reinterpret_cast<const uint8_t*>(from_[i] + column) + byte, true);
    }
  }

  // sum += A x over every `step`-th 16 columns of a stage, for kGroups times 16 rows.
  template <int kGroups, int kTileCount>
  __device__ __forceinline__ void multiply(float (&sum)[2][kTiles][4], int at, int columns,
                                           int first_step, int step, int group, int first_token) {
    const int rows = rows_ - 16 * group;  // of these groups
    if (rows >= 16 * kGroups) {
      multiply_steps<kGroups, kTileCount, true>(sum, at, columns, first_step, step, group,
                                                first_token);
    } else if (rows > 0) {
      multiply_steps<kGroups, kTileCount, false>(sum, at, columns, first_step, step, group,
                                                 first_token);
    }
  }
  template <int kGroups, int kTileCount, bool kWhole>
  __device__ __forceinline__ void multiply_steps(float (&sum)[2][kTiles][4], int at, int columns,
                                                 int first_step, int step, int group,
                                                 int first_token) {
    uint32_t x = shared_address(shared_.x[at]) +
                 (first_token + lane_ / 16 * 8 + lane_ % 8) * kXStride + lane_ / 8 % 2 * 16 +
                 32 * first_step;
    const uint8_t* a = shared_.a[at] + first_step * 32 * rows_ + group * 512;
#pragma unroll 2
    for (int s = first_step; s < columns / 16; s += step) {
      uint4 fragment[kGroups];
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const int rows = rows_ - 16 * (group + g);
        fragment[g] = {};
        if (kWhole || rows > 0)
          fragment[g] = load_shared_fragment(a + g * 512, kWhole || rows >= 16, lane_);
      }
#pragma unroll
      for (int j = 0; j < kTileCount; j += 2) {
        const uint4 b = ldmatrix_x4(x + 8 * j * kXStride);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          mma_m16n8k16(sum[g][j], fragment[g], b.x, b.y);
          mma_m16n8k16(sum[g][j + 1], fragment[g], b.z, b.w);
        }
      }
      a += step * 32 * rows_;
      x += step * 32;
    }
  }

  // Adds the scaled sums of a part to u, in the order of the parts.
  __device__ __forceinline__ void end_part(bool in_pairs, float (&sum)[2][kTiles][4],
                                           float (&u)[2][kTiles][4]) {
    if (in_pairs) {
      __syncthreads();  // the part before has been read
#pragma unroll
      for (int g = 0; g < 2; ++g) {
#pragma unroll
        for (int j = 0; j < kPairTiles; ++j) {
          if (warp_ >= 4) {
            shared_.odd[warp_ % 4][g * kPairTiles + j][lane_] =
                make_float4(sum[g][j][0], sum[g][j][1], sum[g][j][2], sum[g][j][3]);
          }
        }
      }
      __syncthreads();
#pragma unroll
      for (int g = 0; g < 2; ++g) {
#pragma unroll
        for (int j = 0; j < kPairTiles; ++j) {
          const float4 odd = shared_.odd[warp_ % 4][g * kPairTiles + j][lane_];
          sum[g][j][0] += odd.x, sum[g][j][1] += odd.y, sum[g][j][2] += odd.z,
              sum[g][j][3] += odd.w;
        }
      }
    }
    const int group = in_pairs ? 0 : warp_ / 2;
#pragma unroll
    for (int g = 0; g < 2; ++g) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          // Where one A serves both, the scaling of up comes in store().
          const int r = 64 * item_.slab + 16 * (group + g) + lane_ / 4 + i / 2 * 8;
          const float scaling =
              item_.one_a || r < item_.rank ? item_.scaling_gate : item_.scaling_up;
          // As two roundings, which is what readers of stored parts have.
          u[g][j][i] = __fadd_rn(u[g][j][i], __fmul_rn(sum[g][j][i], scaling));
          if (item_.one_a)
            of_up_[g][j][i] = __fadd_rn(of_up_[g][j][i], __fmul_rn(sum[g][j][i], item_.scaling_up));
          sum[g][j][i] = 0.0f;
        }
      }
    }
  }

  template <int kGroups, int kTileCount>
  __device__ __forceinline__ void store(const float (&u)[2][kTiles][4], int group,
                                        int first_token) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int j = 0; j < kTileCount; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = first_token + 8 * j + lane_ % 4 * 2 + i % 2;
          const int in_slab = 16 * (group + g) + lane_ / 4 + i / 2 * 8;
          if (n >= item_.num_tokens || in_slab >= rows_) continue;
          const int r = 64 * item_.slab + in_slab;
          const auto put_at = [&](int row, int rank, int of_up, float value) {
            reinterpret_cast<__nv_bfloat16*>(large_u_of(
                p_, rank / 16, row))[large_u_element(rank % 16, of_up)] = __float2bfloat16(value);
          };
          const auto put = [&](int rank, int of_up, float value) {
            if (item_.first_row < p_.workspace.max_rows)
              return put_at(item_.first_row + n, rank, of_up, value);
            // An A that experts share has been multiplied once for all pairs of the token.
            const int per_token = p_.sizes.pairs_per_token();
            const int token = __ldcg(p_.workspace.token_of_row + item_.first_row + n);
            for (int k = 0; k < per_token; ++k) {
              const int row = __ldcg(p_.workspace.row_of_pair + token * per_token + k);
              if (row >= 0) put_at(row, rank, of_up, value);
            }
          };
          if (item_.one_a || r < item_.rank) put(r, 0, u[g][j][i]);
          if (item_.one_a) put(r, 1, of_up_[g][j][i]);
          if (!item_.one_a && r >= item_.rank) put(r - item_.rank, 1, u[g][j][i]);
        }
      }
    }
  }

  const MoeLayerParams& p_;
  ShrinkShared& shared_;
  const MoeShrinkItem& item_;
  int warp_, lane_, rows_, part_columns_, stages_per_part_;
  const Bf16* from_[kTokens / 16];
  float of_up_[2][kTiles][4] = {};  // where one A serves both
};

__global__ __launch_bounds__(kThreads, 2) void moe_large_shrink_kernel(
    const __grid_constant__ MoeLayerParams p) {
  extern __shared__ __align__(16) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<ShrinkShared*>(dynamic_shared);
  wait_for_previous_kernel();
  let_next_kernel_start();
  const int num_items = __ldcg(&p.workspace.counts->num_shrink_items);
#pragma unroll 1
  for (int i = blockIdx.x; i < num_items; i += gridDim.x) {
    const MoeShrinkItem item = load_large_entry(p.workspace.shrink_items + i);
    Shrink(p, shared, item).run();
  }
}

}  // namespace

void launch_large_shrink(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  static const bool allowed = [] {
    allow_shared_bytes("moe_large_shrink", moe_large_shrink_kernel, sizeof(ShrinkShared));
    return true;
  }();
  (void)allowed;
  launch(
      "moe_large_shrink", moe_large_shrink_kernel,
      {.grid = dim3(2 * plan.num_sms), .cta = dim3(kThreads), .shared_bytes = sizeof(ShrinkShared)},
      stream, p);
}

}  // namespace braid::kernels

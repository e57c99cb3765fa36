// The shrink of gate_up in large batches: u = x A^T of every run by a CTA for 64 tokens, left
// scaled, as BF16, in the order in which the GEMM reads it.
//
// A's fragments are wgmma's A operand, from registers, in the order in which they are packed for
// mma; the tokens' rows of x its B operand. Sums are those of sm90_consumer.cuh, by the same 16
// products at a time: H is cut into four parts; where a slab has 32 rows or less, even and odd
// steps of 16 columns have sums of their own. Those of odd steps are then rows 32 to 63 of the
// product, for which even steps have zeros, and the other way round.

#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/common/async_copy.cuh"
#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/tiles.h"
#include "kernels/common/wgmma.cuh"
#include "kernels/common/wgmma_registers.cuh"
#include "kernels/moe_gemm/large_lora.cuh"

namespace braid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kCtasPerSm = 3;
constexpr int kStages = 4;
constexpr int kColumns = 64;  // of a stage
constexpr int kSteps = kColumns / 16;
constexpr int kTokens = kLargeShrinkTokens;
static_assert(kTokens == 64);  // of one product

struct ShrinkShared {
  alignas(1024) uint8_t x[kStages][kTokens * 2 * kColumns];  // rows of 128 bytes, swizzled
  alignas(16) uint8_t a[kStages][64 * 2 * kColumns];
};

class Shrink {
 public:
  __device__ Shrink(const MoeLayerParams& p, ShrinkShared& shared, const MoeShrinkItem& item)
      : p_(p),
        shared_(shared),
        item_(item),
        lane_(threadIdx.x % 32),
        rows_(slab_rows(item.one_a ? item.rank : 2 * item.rank, item.slab)),
        group_(rows_ <= 32 ? threadIdx.x / 32 % 2 : threadIdx.x / 32),
        odd_(threadIdx.x / 64),
        part_columns_(p.sizes.hidden_size / kShrinkParts),
        stages_per_part_((part_columns_ + kColumns - 1) / kColumns) {
    // A thread copies 16 bytes of every 16th token.
#pragma unroll
    for (int i = 0; i < kTokens / 16; ++i) {
      const int n = min(static_cast<int>(threadIdx.x) / 8 + 16 * i, item.num_tokens - 1);
      from_[i] =
          p.x +
          int64_t{__ldcg(p.workspace.token_of_row + item.first_row + n)} * p.sizes.hidden_size +
          threadIdx.x % 8 * 8;
    }
  }

  __device__ __forceinline__ void run() {
    const int num_stages = kShrinkParts * stages_per_part_;
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < num_stages) load(i);
      async_copy_commit();
    }
    float sum[kTokens / 2];
    int at = 0, of_part = 0;
#pragma unroll 1
    for (int i = 0; i < num_stages; ++i) {
      async_copy_wait<kStages - 2>();
      fence_proxy_async_shared();
      __syncthreads();
      if (i + kStages - 1 < num_stages) load(i + kStages - 1);
      async_copy_commit();
      multiply(sum, at, columns_of(i), of_part > 0);
      if (++of_part == stages_per_part_) {
        end_part(sum, at);
        of_part = 0;
      }
      at = at == kStages - 1 ? 0 : at + 1;
    }
    store();
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
#pragma unroll 2
    for (int i = 16 * threadIdx.x; i < columns * rows_ * 2; i += 16 * kThreads)
      async_copy_16(to_a + i, a + i, true);
    // What is behind the part's columns counts as zero.
    const int byte = threadIdx.x % 8 * 16;
#pragma unroll
    for (int i = 0; i < kTokens / 16; ++i) {
      const int n = threadIdx.x / 8 + 16 * i;
      async_copy_16(to_x + swizzled(n, byte), from_[i] + column, byte < 2 * columns);
    }
  }

  // sum (+)= A x of a stage.
  __device__ __forceinline__ void multiply(float (&sum)[kTokens / 2], int at, int columns,
                                           bool accumulate) {
    uint4 a[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int rows = rows_ - 16 * group_;
      const bool mine = rows > 0 && 16 * s < columns && (rows_ > 32 || s % 2 == odd_);
      a[s] = {};
      if (mine) {
        a[s] = load_large_fragment<1>(shared_.a[at] + s * 32 * rows_ + group_ * 512, rows >= 16,
                                      lane_);
      }
    }
    const uint64_t x = wgmma_descriptor(shared_.x[at]);
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
      wgmma_m64k16_registers_by_k(sum, a[s], x + s * kWgmmaStep32Bytes, s > 0 || accumulate);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(sum);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      uint32_t(&registers)[4] = reinterpret_cast<uint32_t(&)[4]>(a[s]);
      wgmma_pin(registers);
    }
  }

  // Adds the scaled sums of a part to u, in the order of the parts.
  __device__ __forceinline__ void end_part(float (&sum)[kTokens / 2], int at) {
    if (rows_ <= 32) {
      // In the place of the stage.
      __syncthreads();
      auto* const odd =
          reinterpret_cast<float4*>(shared_.x[at]) + group_ * (kTokens / 8 * 32) + lane_;
      if (odd_ == 1) {
#pragma unroll
        for (int j = 0; j < kTokens / 8; ++j)
          odd[32 * j] = make_float4(sum[4 * j], sum[4 * j + 1], sum[4 * j + 2], sum[4 * j + 3]);
      }
      __syncthreads();
      if (odd_ == 1) return;
#pragma unroll
      for (int j = 0; j < kTokens / 8; ++j) {
        const float4 of = odd[32 * j];
        sum[4 * j] += of.x, sum[4 * j + 1] += of.y, sum[4 * j + 2] += of.z, sum[4 * j + 3] += of.w;
      }
    }
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) {
      // Where one A serves both, the scaling of up comes in addition.
      const float scaling =
          item_.one_a || row_of(i / 2 % 2) < item_.rank ? item_.scaling_gate : item_.scaling_up;
      // As two roundings, which is what readers of stored parts have.
      u_[i] = __fadd_rn(u_[i], __fmul_rn(sum[i], scaling));
      if (item_.one_a) up_[i] = __fadd_rn(up_[i], __fmul_rn(sum[i], item_.scaling_up));
    }
  }

  // Row of A, of gate's above up's, that a lane's sums are of: the first two of four, or the
  // others.
  __device__ __forceinline__ int row_of(int second) const {
    return 64 * item_.slab + 16 * group_ + lane_ / 4 + 8 * second;
  }

  // Through shared memory, so that a short loop does the rest: instructions that run once take as
  // long as they take to be fetched.
  __device__ __forceinline__ void store() {
    auto* const u = reinterpret_cast<float*>(&shared_);  // [2, 64 rows of A, kUStride]
    __syncthreads();                                     // the last stage has been read
    if (rows_ > 32 || odd_ == 0) {
#pragma unroll
      for (int i = 0; i < kTokens / 2; i += 2) {
        float* const to =
            u + (row_of(i / 2 % 2) - 64 * item_.slab) * kUStride + i / 4 * 8 + lane_ % 4 * 2;
        *reinterpret_cast<float2*>(to) = make_float2(u_[i], u_[i + 1]);
        if (item_.one_a)
          *reinterpret_cast<float2*>(to + 64 * kUStride) = make_float2(up_[i], up_[i + 1]);
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < rows_ * item_.num_tokens; i += kThreads) {
      const int n = i / rows_, in_slab = i % rows_, r = 64 * item_.slab + in_slab;
      const float* const from = u + in_slab * kUStride + n;
      const bool of_up = !item_.one_a && r >= item_.rank;
      put(n, of_up ? r - item_.rank : r, of_up, from[0]);
      if (item_.one_a) put(n, r, 1, from[64 * kUStride]);
    }
  }
  static constexpr int kUStride = kTokens + 2;
  static_assert(2 * 64 * kUStride * sizeof(float) <= sizeof(ShrinkShared));

  __device__ __forceinline__ void put(int n, int rank, int of_up, float value) {
    const auto put_at = [&](int row) {
      reinterpret_cast<__nv_bfloat16*>(large_u_of(
          p_, rank / 16, row))[large_u_element(rank % 16, of_up)] = __float2bfloat16(value);
    };
    if (item_.first_row < p_.workspace.max_rows) return put_at(item_.first_row + n);
    // An A that experts share has been multiplied once for all pairs of the token.
    const int per_token = p_.sizes.pairs_per_token();
    const int token = __ldcg(p_.workspace.token_of_row + item_.first_row + n);
#pragma unroll 1
    for (int k = 0; k < per_token; ++k) {
      const int row = __ldcg(p_.workspace.row_of_pair + token * per_token + k);
      if (row >= 0) put_at(row);
    }
  }

  const MoeLayerParams& p_;
  ShrinkShared& shared_;
  const MoeShrinkItem& item_;
  int lane_, rows_;
  int group_;  // of 16 rows, that the warp has
  int odd_;    // whether the warp has odd steps, where it has not all
  int part_columns_, stages_per_part_;
  const Bf16* from_[kTokens / 16];
  float u_[kTokens / 2] = {};
  float up_[kTokens / 2] = {};  // where one A serves both
};

__global__ __launch_bounds__(kThreads, kCtasPerSm) void moe_large_shrink_kernel(
    const __grid_constant__ MoeLayerParams p) {
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
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
  launch("moe_large_shrink", moe_large_shrink_kernel,
         {.grid = dim3(kCtasPerSm * plan.num_sms),
          .cta = dim3(kThreads),
          .shared_bytes = sizeof(ShrinkShared)},
         stream, p);
}

}  // namespace braid::kernels

// The shrink of gate_up in large batches: u = x A^T of every run by a CTA for up to 128 tokens,
// left scaled, as BF16, in the order in which the GEMM reads it.
//
// A's fragments are wgmma's A operand, from registers, in the order in which they are packed for
// mma; the tokens' rows of x its B operand. Sums are those of sm90_consumer.cuh, by the same 16
// products at a time: H is cut into four parts; where a slab has 32 rows or less, even and odd
// steps of 16 columns have sums of their own. Those of odd steps are then rows 32 to 63 of the
// product, for which even steps have zeros, and the other way round.

#include <algorithm>

#include "kernels/common/async_copy.cuh"
#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/mma.cuh"
#include "kernels/common/packed_fragment.cuh"
#include "kernels/common/shared_address.cuh"
#include "kernels/common/tiles.h"
#include "kernels/common/wgmma.cuh"
#include "kernels/common/wgmma_registers.cuh"
#include "kernels/moe_gemm/large_lora.cuh"

namespace braid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kCtasPerSm = 2;
// Of a thread.
constexpr int kRegisters = 192;
constexpr int kColumns = 64;  // of a stage
constexpr int kSteps = kColumns / 16;
constexpr int kFactorBytes = 64 * 2 * kColumns;  // of a stage, at most
constexpr int kCopyTokens = kThreads / 8;        // whose columns all threads copy at a time
constexpr int kRingBytes = 72 * 1024;
constexpr int kCopyBytes = 16 * kThreads;  // by all threads at a time

struct ShrinkShared {
  alignas(1024) uint8_t ring[kRingBytes];
  float u[2 * 64 * (kOneAShrinkTokens + 1)];  // [A of both: 2, rows of A: 64, tokens and one more]
  alignas(16) uint8_t zero[512];              // a fragment
  // What the CTA does next: on its way while it works on the item before.
  MoeShrinkItem item;
  int32_t token[kLargeShrinkTokens];
};

__device__ __forceinline__ void fetch_item(const MoeLayerParams& p, ShrinkShared& shared, int i) {
  const auto* const from = reinterpret_cast<const uint8_t*>(p.workspace.shrink_items + i);
  const int byte = 16 * threadIdx.x;
  if (byte < static_cast<int>(sizeof(MoeShrinkItem)))
    async_copy_16(shared_address(&shared.item) + byte, from + byte, true);
}
// Once the item is there.
__device__ __forceinline__ void fetch_tokens(const MoeLayerParams& p, ShrinkShared& shared) {
  const int n = threadIdx.x;
  if (n >= shared.item.num_tokens) return;
  async_copy_4(shared_address(shared.token + n),
               p.workspace.token_of_row + shared.item.first_row + n);
}
__device__ __forceinline__ void wait_for_fetched() {
  async_copy_commit();
  async_copy_wait<0>();
  __syncthreads();
}

__device__ __forceinline__ uint4 load_shared_16(uint32_t from) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(from)
               : "memory");
  return v;
}

// 16 bytes, kOffset bytes from these places.
template <int kOffset>
__device__ __forceinline__ void copy_16_at(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0 + %2], [%1 + %2], 16;" ::"r"(shared), "l"(global),
               "n"(kOffset)
               : "memory");
}

// Keeps a value in its register: it would be computed anew in every turn of the loop.
__device__ __forceinline__ void keep(uint32_t& value) { asm volatile("" : "+r"(value)); }

// An item of up to kTokens tokens. kOneA: gate and up may have one A.
template <int kTokens, bool kOneA>
class Shrink {
 public:
  // Of the item in shared memory. `next`, if it is not negative, is the one that comes then.
  __device__ Shrink(const MoeLayerParams& p, ShrinkShared& shared, int next)
      : p_(p),
        shared_(shared),
        item_(shared.item),
        next_(next),
        lane_(threadIdx.x % 32),
        rows_(slab_rows(item_.one_a ? item_.rank : 2 * item_.rank, item_.slab)),
        group_(rows_ <= 32 ? threadIdx.x / 32 % 2 : threadIdx.x / 32),
        odd_(threadIdx.x / 64),
        part_columns_(p.sizes.hidden_size / kShrinkParts),
        columns_to_load_(part_columns_),
        factor_(item_.factor + 16 * threadIdx.x),
        columns_(p.x + threadIdx.x % 8 * 8),
        num_copies_((item_.num_tokens - threadIdx.x / 8 + kCopyTokens - 1) / kCopyTokens) {
    // A thread copies 16 bytes of every 16th token.
    x_to_ = shared_address(shared.ring) + swizzled(threadIdx.x / 8, threadIdx.x % 8 * 16);
    factor_to_ = shared_address(factor_at(0)) + 16 * threadIdx.x;
    keep(x_to_), keep(factor_to_);
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (i >= num_copies_) continue;
      row_[i] = static_cast<uint32_t>(shared.token[threadIdx.x / 8 + kCopyTokens * i]) *
                static_cast<uint32_t>(p.sizes.hidden_size);
    }
    const int rows = rows_ - 16 * group_;
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const bool has = rows > 0 && (rows_ > 32 || odd_ == odd);
      fragment_[odd] =
          shared_address(has ? factor_at(0) + odd * 32 * rows_ + group_ * 512 : shared.zero) +
          16 * lane_;
      fragment_stage_[odd] = has ? kStageBytes : 0;
      keep(fragment_[odd]), keep(fragment_stage_[odd]);
    }
    is_half_ = rows > 0 && rows < 16;
  }

  __device__ __forceinline__ void run() {
    // A multiple of four.
    const int num_stages_of_part = (part_columns_ + kColumns - 1) / kColumns;
    const int num_stages = kShrinkParts * num_stages_of_part;
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < num_stages) load(i);
      async_copy_commit();
    }
    float sum[kTokens / 2];
    int at = 0, columns = part_columns_;  // of the part, that are left
#pragma unroll 1
    for (int i = 0; i < num_stages; ++i) {
      async_copy_wait<kStages - 2>();
      fence_proxy_async_shared();
      __syncthreads();
      multiply(sum, at, columns, columns < part_columns_, [&] {
        if (i + kStages - 1 < num_stages) load(at == 0 ? kStages - 1 : at - 1);
        if (i == 0 && next_ >= 0) fetch_item(p_, shared_, next_);
        async_copy_commit();
      });
      columns -= kColumns;
      if (columns <= 0) {
        end_part(sum, at, i < num_stages_of_part);
        columns = part_columns_;
      }
      at = at == kStages - 1 ? 0 : at + 1;
    }
    async_copy_wait<0>();
    __syncthreads();  // u and the next item are there
    if (next_ >= 0) fetch_tokens(p_, shared_);
    store();
    wait_for_fetched();
  }

 private:
  static constexpr int kCopies = kTokens / kCopyTokens;
  static constexpr int kRowsBytes = kTokens * 2 * kColumns;  // of x: rows of 128, swizzled
  static constexpr int kStageBytes = kRowsBytes + kFactorBytes;
  static constexpr int kStages = kRingBytes / kStageBytes;

  __device__ __forceinline__ uint8_t* rows_at(int at) const {
    return shared_.ring + at * kStageBytes;
  }
  __device__ __forceinline__ uint8_t* factor_at(int at) const { return rows_at(at) + kRowsBytes; }

  // The next columns. Rows of no token are left as they are: what comes of them is not stored.
  __device__ __forceinline__ void load(int at) {
    const int columns = min(kColumns, columns_to_load_), factor_bytes = columns * rows_ * 2;
    const int of_thread = factor_bytes - 16 * static_cast<int>(threadIdx.x);
    const uint32_t to_factor = factor_to_ + at * kStageBytes;
    static_assert(kFactorBytes == 4 * kCopyBytes);
    if (of_thread > 0) copy_16_at<0>(to_factor, factor_);
    if (of_thread > kCopyBytes) copy_16_at<kCopyBytes>(to_factor, factor_);
    if (of_thread > 2 * kCopyBytes) copy_16_at<2 * kCopyBytes>(to_factor, factor_);
    if (of_thread > 3 * kCopyBytes) copy_16_at<3 * kCopyBytes>(to_factor, factor_);
    factor_ += factor_bytes;
    // What is behind the part's columns counts as zero.
    const bool there = static_cast<int>(threadIdx.x % 8 * 16) < 2 * columns;
    const uint32_t to = x_to_ + at * kStageBytes;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (i < num_copies_) async_copy_16(to + i * kCopyTokens * 128, columns_ + row_[i], there);
    }
    columns_ += columns;
    columns_to_load_ -= columns;
    if (columns_to_load_ == 0) columns_to_load_ = part_columns_;
  }

  // sum (+)= A x of a stage; `meanwhile` is done before the products are there.
  template <class Body>
  __device__ __forceinline__ void multiply(float (&sum)[kTokens / 2], int at, int columns,
                                           bool accumulate, Body meanwhile) {
    uint4 a[kSteps];
    if (columns >= kColumns && !is_half_) {
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const uint32_t stage = fragment_stage_[s % 2], step = stage > 0 ? 64 * rows_ : 0;
        a[s] = load_shared_16(fragment_[s % 2] + at * stage + s / 2 * step);
      }
    } else {
      const int rows = rows_ - 16 * group_;
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        a[s] = {};
        if (fragment_stage_[s % 2] > 0 && 16 * s < columns)
          a[s] = load_fragment<1>(factor_at(at) + s * 32 * rows_ + group_ * 512, rows >= 16, lane_);
      }
    }
    const uint64_t x = wgmma_descriptor(rows_at(at));
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
      wgmma_m64k16_registers_by_k(sum, a[s], x + s * kWgmmaStep32Bytes, s > 0 || accumulate);
    wgmma_commit();
    meanwhile();
    wgmma_wait<0>();
    wgmma_pin(sum);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      uint32_t(&registers)[4] = reinterpret_cast<uint32_t(&)[4]>(a[s]);
      wgmma_pin(registers);
    }
  }

  // Adds the scaled sums of a part to u, in the order of the parts.
  __device__ __forceinline__ void end_part(float (&sum)[kTokens / 2], int at, bool is_first) {
    if (rows_ <= 32) {
      // In the place of the stage.
      __syncthreads();
      auto* const odd =
          reinterpret_cast<float4*>(rows_at(at)) + group_ * (kTokens / 8 * 32) + lane_;
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
    // Where one A serves both, the scaling of up comes in addition.
    const auto add_to_u = [&](int of_up) {
      const auto scaling_of = [&](int second) {
        const bool is_up = of_up == 1 || (!(kOneA && item_.one_a) && row_of(second) >= item_.rank);
        return is_up ? item_.scaling_up : item_.scaling_gate;
      };
      const float scaling[2] = {scaling_of(0), scaling_of(1)};
      float* const u =
          shared_.u + of_up * 64 * kUStride + (16 * group_ + lane_ / 4) * kUStride + lane_ % 4 * 2;
#pragma unroll
      for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& to = u[i / 2 * 8 * kUStride + 8 * j + i % 2];
          // As two roundings, which is what readers of stored parts have.
          to = __fadd_rn(is_first ? 0.0f : to, __fmul_rn(sum[4 * j + i], scaling[i / 2]));
        }
      }
    };
    add_to_u(0);
    if constexpr (kOneA) {
      if (item_.one_a) add_to_u(1);
    }
  }

  // Row of A, of gate's above up's, that a lane's sums are of: the first two of four, or the
  // others.
  __device__ __forceinline__ int row_of(int second) const {
    return 64 * item_.slab + 16 * group_ + lane_ / 4 + 8 * second;
  }

  // A warp takes a token, a lane two ranks.
  __device__ __forceinline__ void store() {
    if (2 * lane_ >= rows_) return;
    const int r = 64 * item_.slab + 2 * lane_;
    const bool of_up = !item_.one_a && r >= item_.rank;
    const int rank = of_up ? r - item_.rank : r;
    const float* const from = shared_.u + 2 * lane_ * kUStride;
#pragma unroll 1
    for (int n = threadIdx.x / 32; n < item_.num_tokens; n += kThreads / 32) {
      put(n, rank, of_up, from[n], from[n + kUStride]);
      if constexpr (kOneA) {
        if (item_.one_a) put(n, rank, 1, from[n + 64 * kUStride], from[n + 65 * kUStride]);
      }
    }
  }
  static constexpr int kUStride = kTokens + 1;  // rows in different banks
  static_assert((kOneA ? 2 : 1) * 64 * kUStride * sizeof(float) <= sizeof(ShrinkShared::u));

  __device__ __forceinline__ void put(int n, int rank, int of_up, float low, float high) {
    const uint32_t two = pack_bf16(low, high);
    const auto put_at = [&](int row) {
      *reinterpret_cast<uint32_t*>(large_u_of(p_, rank / 16, row) +
                                   large_u_element(rank % 16, of_up)) = two;
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
  const MoeShrinkItem item_;
  int next_;
  int lane_, rows_;
  int group_;  // of 16 rows, that the warp has
  int odd_;    // whether the warp has odd steps, where it has not all
  int part_columns_;
  int columns_to_load_;    // of a part
  const uint8_t* factor_;  // what the thread copies next of A
  const Bf16* columns_;    // and of x, the thread's columns
  uint32_t row_[kCopies];  // of its tokens in x, in elements
  int num_copies_;
  uint32_t x_to_, factor_to_;  // in the first stage
  // A lane's part of a fragment of A, of the first two steps of a stage, and from one stage to the
  // next. Where the warp has none, zeros.
  uint32_t fragment_[2], fragment_stage_[2];
  bool is_half_;
};

__global__ __maxnreg__(kRegisters) void moe_large_shrink_kernel(
    const __grid_constant__ MoeLayerParams p) {
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<ShrinkShared*>(dynamic_shared);
  wait_for_previous_kernel();
  let_next_kernel_start();
  const int num_items = __ldcg(&p.workspace.counts->num_shrink_items);
  if (static_cast<int>(blockIdx.x) >= num_items) return;
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(shared.zero)) / 4; i += kThreads)
    reinterpret_cast<uint32_t*>(shared.zero)[i] = 0;
  fetch_item(p, shared, blockIdx.x);
  wait_for_fetched();
  fetch_tokens(p, shared);
  wait_for_fetched();
#pragma unroll 1
  for (int i = blockIdx.x; i < num_items; i += gridDim.x) {
    const int after = i + static_cast<int>(gridDim.x), next = after < num_items ? after : -1;
    const int num_tokens = shared.item.num_tokens;
    if (num_tokens <= 32) {
      Shrink<32, true>(p, shared, next).run();
    } else if (num_tokens <= kOneAShrinkTokens) {
      Shrink<kOneAShrinkTokens, true>(p, shared, next).run();
    } else {
      Shrink<kLargeShrinkTokens, false>(p, shared, next).run();
    }
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

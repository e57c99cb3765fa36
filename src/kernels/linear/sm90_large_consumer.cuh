#pragma once

// A warpgroup of the GEMM of large batches: 64 tokens by 128 rows of weights. Order and form of all
// sums are those of sm90_consumer.cuh, so that a token has the same bits in batches of every size:
// sums of the parts of the columns, added up in order, then the delta, summed by itself.

#include "kernels/common/mma.cuh"
#include "kernels/common/packed_fragment.cuh"
#include "kernels/common/token_block.cuh"
#include "kernels/linear/sm90_large_shared.cuh"

namespace braid::kernels {

template <class Config>
class LinearLargeConsumer {
 public:
  __device__ LinearLargeConsumer(const LinearBf16Params& p, const LinearLargeGrid& grid,
                                 LinearLargeShared<Config>& shared, int warp, int lane)
      : p_(p), grid_(grid), shared_(shared), warp_(warp), lane_(lane) {}

  __device__ __forceinline__ void run() {
#pragma unroll 1
    for (int i = blockIdx.x / kPairCtas; i < grid_.num_units; i += gridDim.x / kPairCtas) {
      const LinearLargeUnit unit(grid_, i);
      // Asked for before the products.
      const int token = token_of_row(unit.first_row() + first_token() + lane_ % 16);
      const int run = Config::kLora ? __ldg(p_.order.run_of_row + unit.first_row()) : -1;
      asm volatile("" ::"r"(token), "r"(run));
      TokenSums sum;
      multiply(sum);
      if constexpr (Config::kLora) {
        if (run >= 0) add_delta(sum);  // tokens without adapter are behind the others
        // From one lane, so that the compiler knows that all have the same, and computes wgmma's
        // descriptors once for the warp.
        next_stage_ = __shfl_sync(~0u, next_stage_, 0);
      }
      if (unit.is_there(grid_, cluster_rank())) store(unit, token, sum);
    }
  }

 private:
  __device__ __forceinline__ int stage() const { return next_stage_ % Config::kStages; }
  __device__ __forceinline__ void release() { shared_.ring.release(next_stage_++, lane_); }
  // The warp's first token in the tile.
  __device__ __forceinline__ int first_token() const { return 16 * warp_; }

  __device__ __forceinline__ static void clear(TokenSums& sum) {
#pragma unroll
    for (float(&four)[4] : sum) {
#pragma unroll
      for (float& x : four) x = 0.0f;
    }
  }
  __device__ __forceinline__ static void add_to(TokenSums& sum, const TokenSums& other) {
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[j][i] += other[j][i];
    }
  }

  __device__ __forceinline__ void multiply(TokenSums& sum) {
    clear(sum);
    int k = 0;
#pragma unroll 1
    for (int part = 0; part < grid_.num_parts; ++part) {
      const int end = part_begin(grid_.depth, part + 1, grid_.num_parts);
      TokenSums of_part;
      clear(of_part);
#pragma unroll 1
      for (; k < end; ++k) {
        shared_.ring.wait_full(next_stage_);
        const uint8_t* const weights = shared_.stages[stage()];
        const auto* const token_scales =
            reinterpret_cast<const float*>(weights + Config::kTokenScalesAt);
        const int in_group = k % Config::kScaleGroup;
        if (in_group == 0) ++next_scales_;
        add_token_product<4, RowScales::kHalves>(
            wgmma_descriptor(weights + Config::kTokensAt) + warp_ / 4 * kWgmmaStep64Rows,
            wgmma_descriptor(weights), token_scales + first_token() + lane_ / 4,
            shared_.weight_scales[(next_scales_ - 1) % Config::kScaleGroups][in_group], of_part);
        release();
      }
      add_to(sum, of_part);
    }
  }

  // sum += u B^T of the tokens' adapters.
  __device__ __forceinline__ void add_delta(TokenSums& sum) {
    TokenSums delta;
    clear(delta);
    bool is_last;
#pragma unroll 1
    do {
      shared_.ring.wait_full(next_stage_);
      const LinearLargeFactors<Config>& factors = shared_.factors[stage()];
      is_last = factors.is_last != 0;
#pragma unroll 1
      for (int c = 0; c < factors.num_cells; ++c)
        expand(factors.cells[c], shared_.stages[stage()] + c * Config::kCellBytes, delta);
      release();
    } while (!is_last);
    add_to(sum, delta);
  }

  // Tokens are rows of mma's A operand, as they are of wgmma's; those that are not the cell's count
  // as zero.
  __device__ __forceinline__ void expand(const LinearLargeCell& cell, const uint8_t* at,
                                         TokenSums& delta) {
    const int first = first_token();
    if (first >= cell.end || first + 16 <= cell.begin) return;
    const bool whole = !cell.is_half;
    const auto load = [&](int n, int octet) {
      const bool mine = n >= cell.begin && n < cell.end && (octet == 0 || whole);
      return mine ? *reinterpret_cast<const uint32_t*>(at + octet * Config::kOctetBytes + 16 * n +
                                                       4 * (lane_ % 4))
                  : 0u;
    };
    const int low = first + lane_ / 4, high = low + 8;
    const uint4 u = make_uint4(load(low, 0), load(high, 0), load(low, 1), load(high, 1));
    const uint8_t* const b = at + 2 * Config::kOctetBytes;
#pragma unroll
    for (int g = 0; g < 8; ++g) {
      if (g < cell.first_piece || g >= cell.end_piece) continue;
      const uint4 piece = load_fragment<2>(b + g * Config::kPieceBytes, whole, lane_);
      mma_m16n8k16(delta[2 * g], u, piece.x, piece.z);
      mma_m16n8k16(delta[2 * g + 1], u, piece.y, piece.w);
    }
  }

  // -1: there is no such row.
  __device__ __forceinline__ int token_of_row(int row) const {
    if (row >= p_.num_tokens) return -1;
    return Config::kLora ? __ldg(p_.order.token_of_row + row) : row;
  }

  // token: of the warp's row lane % 16.
  __device__ __forceinline__ void store(const LinearLargeUnit& unit, int token,
                                        const TokenSums& sum) {
    const int first_column = 128 * unit.row_tile(grid_, cluster_rank());
    const int num_columns = p_.shape.out() - first_column;  // or more than the tile's
    if (p_.y != nullptr) {
      int tokens[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) tokens[i] = __shfl_sync(~0u, token, lane_ / 8 + 4 * i);
      store_token_rows(sum, shared_.out[warp_], lane_, [&](int i, int column, const uint4& eight) {
        if (tokens[i] < 0 || column >= num_columns) return;
        *reinterpret_cast<uint4*>(p_.y + tokens[i] * p_.y_stride + first_column + column) = eight;
      });
      return;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int to = __shfl_sync(~0u, token, lane_ / 4 + 8 * i);
      float* const y = p_.y_float + to * p_.y_stride + first_column + 2 * (lane_ % 4);
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        if (to >= 0 && 8 * j < num_columns)
          *reinterpret_cast<float2*>(y + 8 * j) = make_float2(sum[j][2 * i], sum[j][2 * i + 1]);
      }
    }
  }

  const LinearBf16Params& p_;
  const LinearLargeGrid& grid_;
  LinearLargeShared<Config>& shared_;
  int warp_, lane_;
  uint32_t next_stage_ = 0;   // of all that there have been
  uint32_t next_scales_ = 0;  // groups of them
};

}  // namespace braid::kernels

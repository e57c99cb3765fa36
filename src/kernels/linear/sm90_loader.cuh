#pragma once

// The warpgroup that fills the ring of the linear kernel.

#include "kernels/common/async_copy.cuh"
#include "kernels/common/quantize_128.cuh"
#include "kernels/linear/sm90_linear.cuh"

namespace braid::kernels {

// x of the CTA's rows and columns to e4m3, by all warps: each takes 128 columns of a row, kBatch of
// which are under way at once. Rows that are not there hold whatever was in shared memory: what
// comes of them is not stored.
template <class Config>
__device__ __forceinline__ void quantize_x(const LinearBf16Params& p, const LinearGrid& grid,
                                           LinearShared<Config>& shared, const LinearTile& tile,
                                           int warp, int lane) {
  // A warp has up to 4 of 8 tokens, and of 16 up to 8.
  constexpr int kWarps = Config::kThreads / 32, kBatch = Config::kTokens / 2;
  const int num_rows = min(Config::kTokens, p.num_tokens - tile.token_tile * Config::kTokens);
  const int num_groups = num_rows * (tile.end_k - tile.first_k);
  // A division by the number of rows, exact for products below 65,536.
  const int inverse = (65535 + num_rows) / num_rows;
#pragma unroll 1
  for (int first = warp; first < num_groups; first += kWarps * kBatch) {
    uint2 four[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int group = first + kWarps * b, i = group * inverse >> 16;
      const int column = (tile.first_k + i) * 128 + 4 * lane;
      four[b] = make_uint2(0, 0);
      if (group < num_groups && column < p.shape.in) {
        four[b] = *reinterpret_cast<const uint2*>(
            p.x + shared.token[group - i * num_rows] * p.x_stride + column);
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int group = first + kWarps * b, i = group * inverse >> 16, row = group - i * num_rows;
      if (group >= num_groups) break;
      const Quantized128 q = quantize_128(four[b]);
      *reinterpret_cast<__nv_fp8x4_e4m3*>(shared.x(grid, i) + swizzled(row, 4 * lane)) = q.codes;
      if (lane == 0) shared.x_scale(grid, i)[row] = q.scale;
    }
  }
  fence_proxy_async_shared();
}

template <class Config>
class LinearLoader {
 public:
  __device__ LinearLoader(const LinearBf16Params& p, const LinearGrid& grid,
                          LinearShared<Config>& shared, const LinearTile& tile, int thread)
      : p_(p), grid_(grid), shared_(shared), tile_(tile), thread_(thread) {}

  // By one thread, once the barriers are there, before the previous kernel has finished: as many
  // weights as the ring holds.
  __device__ __forceinline__ void first_weights() {
    const int n = min(tile_.end_k - tile_.first_k, grid_.num_stages);
#pragma unroll 1
    for (int i = 0; i < n; ++i) copy_weights(i, tile_.first_k + i);
  }

  // By all threads of the warpgroup, once x is there.
  __device__ __forceinline__ void run() {
    if constexpr (Config::kFp8) {
      if (thread_ == 0) copy_stages();
    } else {
      copy_rows();
    }
  }

 private:
  __device__ __forceinline__ void copy_weights(int stage, int k) {
    constexpr uint32_t kBytes =
        kWeightTileBytes + (Config::kImage ? x_image_bytes(Config::kTokens) : 0);
    mbarrier_arrive_expect(&shared_.full[stage], kBytes);
    bulk_copy(shared_.weights(stage), tile_.weights + int64_t{k} * kWeightTileBytes,
              kWeightTileBytes, &shared_.full[stage],
              grid_.num_token_tiles > 1 ? CachePolicy::kEvictLast : CachePolicy::kEvictFirst);
  }

  // Waits until the stage of tile k may be written, and asks for its weights unless they are under
  // way already. By one thread.
  __device__ __forceinline__ void open(int k, const RingPlace& place) {
    if (k - tile_.first_k < grid_.num_stages) return;
    mbarrier_wait(&shared_.empty[place.stage], place.parity ^ 1);
    copy_weights(place.stage, k);
  }

  // Weights, and x that was quantised apart.
  __device__ __forceinline__ void copy_stages() {
    const uint8_t* const image = p_.workspace.x_image + int64_t{tile_.token_tile} * grid_.depth *
                                                            x_image_bytes(Config::kTokens);
    RingPlace place;
#pragma unroll 1
    for (int k = tile_.first_k; k < tile_.end_k; ++k) {
      open(k, place);
      if constexpr (Config::kImage) {
        uint64_t* const full = &shared_.full[place.stage];
        const uint8_t* const from = image + int64_t{k} * x_image_bytes(Config::kTokens);
        bulk_copy(shared_.x(grid_, place.stage), from, Config::kXBytes, full,
                  CachePolicy::kEvictLast);
        bulk_copy(shared_.x_scale(grid_, place.stage), from + Config::kXBytes, Config::kTokens * 4,
                  full, CachePolicy::kEvictLast);
      }
      place.advance(grid_.num_stages);
    }
  }

  // BF16 rows as they are, 16 bytes a copy.
  __device__ __forceinline__ void copy_rows() {
    constexpr int kCopies = (Config::kTokens * 8 + Config::kLoaders - 1) / Config::kLoaders;
    const int chunk = thread_ % 8, first_row = thread_ / 8;
    RingPlace place;
#pragma unroll 1
    for (int k = tile_.first_k; k < tile_.end_k; ++k) {
      if (k - tile_.first_k >= grid_.num_stages) {
        if (thread_ == 0) {
          open(k, place);
        } else {
          mbarrier_wait(&shared_.empty[place.stage], place.parity ^ 1);
        }
      }
      const int column = k * 64 + 8 * chunk;
      const uint32_t to = shared_address(shared_.x(grid_, place.stage));
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const int row = first_row + Config::kLoaders / 8 * i;
        if (row >= Config::kTokens) break;
        const int token = shared_.token[row];
        const bool there = token >= 0 && column < p_.shape.in;
        async_copy_16(to + swizzled(row, 16 * chunk),
                      p_.x + (there ? token * p_.x_stride + column : 0), there);
      }
      async_copy_arrive(&shared_.full[place.stage]);
      place.advance(grid_.num_stages);
    }
  }

  const LinearBf16Params& p_;
  const LinearGrid& grid_;
  LinearShared<Config>& shared_;
  const LinearTile& tile_;
  int thread_;  // in the warpgroup
};

}  // namespace braid::kernels

#pragma once

#include <cstdint>

#include "kernels/common/cluster_copy.cuh"
#include "kernels/common/mbarrier.cuh"

namespace braid::kernels {

inline constexpr int kPairCtas = 2;

// Barriers of the rings of a cluster of two CTAs, of which each loads into both shared memories.
// Both rings take the same stages in the same order: stage n of all that there have been lies in
// place n % kStages. Each CTA has its own of these; a place is empty when the kConsumerWarps warps
// of both CTAs have released it.
template <int kStages, int kConsumerWarps, int kFullArrivals = 1>
struct PairRing {
  uint64_t full[kStages];  // kFullArrivals, and bytes
  uint64_t empty[kStages];

  // By one thread; then mbarrier_init_fence() and a barrier of the cluster.
  __device__ __forceinline__ void init() {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&full[i], kFullArrivals);
      mbarrier_init(&empty[i], kPairCtas * kConsumerWarps);
    }
  }
  __device__ __forceinline__ void wait_full(uint32_t n) {
    mbarrier_wait(&full[n % kStages], n / kStages % 2);
  }
  __device__ __forceinline__ void wait_empty(uint32_t n) {
    // Of the parity that a new barrier has passed.
    mbarrier_wait(&empty[n % kStages], n / kStages % 2 ^ 1);
  }
  // Returns when all stages before n have been released: no arrival is on its way to this CTA any
  // more, which a barrier of the cluster that orders no memory would not say. Before it ends.
  __device__ __forceinline__ void wait_all_released(uint32_t n) {
#pragma unroll 1
    for (int i = 0; i < kStages; ++i) wait_empty(n + i);
  }
  // The warp has read all it needs of stage n.
  __device__ __forceinline__ void release(uint32_t n, int lane) {
    __syncwarp();
    if (lane < kPairCtas) arrive_in_cta(&empty[n % kStages], lane);
  }
};

}  // namespace braid::kernels

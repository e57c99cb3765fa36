#pragma once

// Decode attention: one query a sequence, every SM busy with a share of the keys.
//
// A unit is one KV head of one sequence over keys_per_split() of its keys. A CTA's producer
// warps stream units' keys and values, 16 keys a stage, through a ring; its other warps take stages
// in turn, each with sums of its own, and join them at the unit's end. The CTA that ends a
// sequence's last unit joins the units.
//
// Keys lie on the rows of the tensor cores' tiles and the heads of a group on the columns, so that
// 8 heads share one pass over the keys:
//
//   S^T [16 keys, 8 heads] = keys [16, D] q^T      O^T [D, 8 heads] += values^T [D, 16] P^T

#include "kernels/attention/sm90_decode_consumer.cuh"
#include "kernels/attention/sm90_decode_producer.cuh"

namespace braid::kernels {

template <class Config>
__global__ __launch_bounds__(Config::kThreads, Config::kCtasPerSm) void attention_decode_kernel(
    const __grid_constant__ AttentionBf16Params p,
    const __grid_constant__ AttentionWorkspace workspace) {
  extern __shared__ __align__(128) uint8_t bytes[];
  auto& shared = *reinterpret_cast<DecodeShared<Config>*>(bytes);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Config::kStages; ++i) {
      mbarrier_init(&shared.full[i], 1);
      mbarrier_init(&shared.empty[i], 1);
    }
    for (int i = 0; i < kUnitSlots; ++i) {
      mbarrier_init(&shared.unit_full[i], 1);
      mbarrier_init(&shared.unit_empty[i], Config::kConsumers + Config::kProducers - 1);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (warp >= Config::kConsumers) {
    decode_produce(p, workspace, shared, warp - Config::kConsumers, lane);
  } else {
    DecodeConsumer<Config>(p, workspace, shared, warp, lane).run();
  }
}

}  // namespace braid::kernels

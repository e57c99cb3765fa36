#pragma once

#include "kernels/attention/sm90_prefill_consumer.cuh"
#include "kernels/attention/sm90_prefill_producer.cuh"
#include "kernels/common/cluster.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/registers.cuh"

namespace braid::kernels {

template <class Config>
__global__ __launch_bounds__(Config::kThreads, 1) void attention_prefill_kernel(
    const __grid_constant__ PrefillArguments a) {
  extern __shared__ __align__(1024) uint8_t bytes[];
  auto& shared = *reinterpret_cast<PrefillShared<Config>*>(bytes);

  // --- who am I ---
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int parts = Config::kSplit ? a.cluster : 1, part = Config::kSplit ? blockIdx.x % parts : 0;
  constexpr int kConsumerWarps = Config::kConsumers / 32;

  // --- barriers ---
  if (threadIdx.x == 0) {
    for (int i = 0; i < Config::kStages; ++i) {
      mbarrier_init(&shared.k_full[i], 1);
      mbarrier_init(&shared.k_empty[i], kConsumerWarps);
      mbarrier_init(&shared.v_full[i], 1);
      mbarrier_init(&shared.v_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(&shared.q_full[i], 1);
      mbarrier_init(&shared.q_empty[i], kConsumerWarps / 2);
    }
    mbarrier_init(&shared.sums_ready, parts);
    mbarrier_init(&shared.sums_read, parts);
    mbarrier_init_fence();
    prefetch_tensor_map(a.k_map);
    prefetch_tensor_map(a.v_map);
  }
  __syncthreads();
  if constexpr (Config::kSplit) cluster_barrier_relaxed();

  // --- producers ---
  if (warp >= kConsumerWarps) {
    give_registers<Config::kProducerRegisters>();
    wait_for_previous_kernel();
    // Not before: decode attention, which this lets start, reads beside it without waiting.
    let_next_kernel_start();
    PrefillProducer<Config> producer(a, shared, part, parts, lane);
    const typename PrefillProducer<Config>::Items items(a.params, blockIdx.x / parts,
                                                        gridDim.x / parts, lane);
    if (warp == kConsumerWarps) {
      producer.copy_keys(items);
    } else if (warp == kConsumerWarps + 1) {
      producer.copy_values(items);
    } else {
      producer.copy_queries(items, warp - kConsumerWarps - 2);
    }
    return;
  }

  // --- consumers ---
  take_registers<Config::kConsumerRegisters>();
  PrefillConsumer<Config>(a.params, shared, warp / 4, part, parts, threadIdx.x % 128).run();
}

}  // namespace braid::kernels

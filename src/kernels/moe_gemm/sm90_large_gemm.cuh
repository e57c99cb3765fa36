#pragma once

// The two grouped GEMMs of large batches. docs/kernels/moe.md, "Large batches".
//
// Clusters of two CTAs, each two warpgroups that multiply and one that loads, through a ring of
// four stages: 128 columns each, then the factors of a unit's runs. Grids are persistent; a
// cluster's first unit goes by its number, then each takes the next that nobody has begun.
//
// The kernels stay below some 7,300 instructions, beyond which ptxas 13.0 computes wgmma's
// descriptors in every lane's registers (docs/kernels/moe.md, "Tried").

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/registers.cuh"
#include "kernels/moe_gemm/sm90_large_consumer.cuh"
#include "kernels/moe_gemm/sm90_large_producer.cuh"

namespace braid::kernels {

template <class Config>
__global__ __launch_bounds__(Config::kThreads, 1) void moe_large_gemm_kernel(
    const __grid_constant__ MoeLayerParams p) {
  // --- who am I; shared memory and barriers ---
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<LargeShared<Config>*>(dynamic_shared);
  const int warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    shared.ring.init();
    for (uint64_t& full : shared.mail_full) mbarrier_init(&full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  cluster_barrier_relaxed();
  wait_for_previous_kernel();
  // Not before: the sum of pairs, which down lets start, clears what gate_up counts with.
  let_next_kernel_start();

  if (warp >= Config::kConsumerWarps) {
    give_registers<Config::kLoaderRegisters>();
    if (Config::kGateUp || warp == Config::kConsumerWarps) {
      fence_proxy_async_global();
      LargeProducer<Config>(p, shared, warp - Config::kConsumerWarps, lane).run();
    } else if constexpr (Config::kLora) {
      constexpr int kWarps = Config::kLoaderThreads / 32 - 1;
      add_up_large_v(p, (warp - Config::kConsumerWarps - 1) * gridDim.x + blockIdx.x,
                     kWarps * gridDim.x, lane);
    }
  } else {
    take_registers<Config::kConsumerRegisters>();
    LargeConsumer<Config>(p, shared, warp).run();
  }
  // Until both have ended, either may reach into the other's shared memory.
  cluster_barrier_relaxed();
}

template <bool kGateUp, bool kLora>
void launch_large_gemm(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  using Config = LargeConfig<kGateUp, kLora>;
  static_assert(sizeof(LargeShared<Config>) <= 227 * 1024);
  constexpr const char* kName = kGateUp ? "moe_large_gate_up" : "moe_large_down";
  static const bool allowed = [] {
    allow_shared_bytes(kName, moe_large_gemm_kernel<Config>, sizeof(LargeShared<Config>));
    return true;
  }();
  (void)allowed;
  launch(kName, moe_large_gemm_kernel<Config>,
         {.grid = dim3(plan.num_sms / Config::kCluster * Config::kCluster),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(LargeShared<Config>),
          .cluster = Config::kCluster},
         stream, p);
}

}  // namespace braid::kernels

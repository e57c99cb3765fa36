// The GEMM of large batches: clusters of two CTAs, each two warpgroups that multiply and a warp
// that loads. Grids are persistent; the units of a cluster follow from its number.

#include <algorithm>

#include "kernels/common/cluster.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/registers.cuh"
#include "kernels/linear/enqueue.h"
#include "kernels/linear/sm90_large_consumer.cuh"
#include "kernels/linear/sm90_large_producer.cuh"

namespace braid::kernels {
namespace {

template <class Config>
__global__ __launch_bounds__(Config::kThreads, 1) void linear_large_kernel(
    const __grid_constant__ LinearBf16Params p, const __grid_constant__ LinearLargeGrid grid) {
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<LinearLargeShared<Config>*>(dynamic_shared);
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    shared.ring.init();
    mbarrier_init_fence();
  }
  __syncthreads();
  cluster_barrier_relaxed();
  let_next_kernel_start();
  wait_for_previous_kernel();

  if (warp >= Config::kConsumerWarps) {
    give_registers<Config::kLoaderRegisters>();
    if (warp == Config::kConsumerWarps) {
      fence_proxy_async_global();
      LinearLargeProducer<Config>(p, grid, shared, lane).run();
    }
  } else {
    take_registers<Config::kConsumerRegisters>();
    LinearLargeConsumer<Config>(p, grid, shared, warp, lane).run();
  }
  // Until both have ended, either may reach into the other's shared memory.
  cluster_barrier_relaxed();
}

template <bool kLora>
void launch_large(const LinearBf16Params& p, CudaStream stream) {
  using Config = LinearLargeConfig<kLora>;
  constexpr const char* kName = "linear_large";
  constexpr int kSms = 132;
  static_assert(sizeof(LinearLargeShared<Config>) <= 227 * 1024);
  static const bool allowed = [] {
    allow_shared_bytes(kName, linear_large_kernel<Config>, sizeof(LinearLargeShared<Config>));
    return true;
  }();
  (void)allowed;
  const int row_tiles = num_row_tiles(p.shape);
  const int token_tiles = (p.num_tokens + Config::kTokens - 1) / Config::kTokens;
  const LinearLargeGrid grid = {.num_parts = linear_parts(p.shape),
                                .depth = num_depth_tiles(p.shape),
                                .num_row_tiles = row_tiles,
                                .num_units = token_tiles * ((row_tiles + 1) / 2)};
  launch(kName, linear_large_kernel<Config>,
         {.grid = dim3(static_cast<unsigned>(std::min(kPairCtas * grid.num_units, kSms))),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(LinearLargeShared<Config>),
          .cluster = kPairCtas},
         stream, p, grid);
}

}  // namespace

void internal::enqueue_linear_large(const LinearBf16Params& p, CudaStream stream) {
  if (p.adapters != nullptr) {
    launch_large<true>(p, stream);
  } else {
    launch_large<false>(p, stream);
  }
}

}  // namespace braid::kernels

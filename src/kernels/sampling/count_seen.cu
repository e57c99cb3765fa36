// Counts of the penalties for a request that starts.

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/sampling/enqueue.h"
#include "kernels/sampling/sampling.h"

namespace braid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kIds = 8192;  // of a CTA

// A CTA goes over all tokens for its own ids, so that no other has to be waited for.
__global__ __launch_bounds__(kThreads) void count_seen_kernel(
    const __grid_constant__ CountSeenParams p) {
  const int first = blockIdx.x * kIds, end = min(first + kIds, p.vocab_size);
  let_next_kernel_start();
  wait_for_previous_kernel();
  for (int id = first + threadIdx.x; id < end; id += kThreads) p.seen[id] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < p.num_tokens; i += kThreads) {
    const int token = __ldcg(p.tokens + i);
    if (token < first || token >= end) continue;
    if (i < p.num_prompt) {
      atomicOr(p.seen + token, kSeenInPrompt);
    } else {
      atomicAdd(p.seen + token, 1u);
    }
  }
}

}  // namespace

void internal::enqueue_count_seen(const CountSeenParams& p, CudaStream stream) {
  launch("count_seen", count_seen_kernel,
         {.grid = dim3(static_cast<unsigned>((p.vocab_size + kIds - 1) / kIds)),
          .cta = dim3(kThreads)},
         stream, p);
}

}  // namespace braid::kernels

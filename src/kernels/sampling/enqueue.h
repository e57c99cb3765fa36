#pragma once

#include "kernels/sampling/logprobs.h"
#include "kernels/sampling/sampling.h"

namespace braid::kernels::internal {

// The launches behind sampling.h and logprobs.h, of parameters that have been checked.
void enqueue_sample(const SampleParams& p, CudaStream stream);
void enqueue_logprobs(const LogprobParams& p, CudaStream stream);
void enqueue_count_seen(const CountSeenParams& p, CudaStream stream);

}  // namespace braid::kernels::internal

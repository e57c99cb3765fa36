#pragma once

#include "base/cuda_fwd.h"

namespace braid::kernels {

// Work put on the side stream later waits for what is on `stream` now.
void fork(CudaStream stream, const SideStream& side);

// Work put on `stream` later waits for what is on the side stream now. The next kernel must not
// overlap its predecessor (LaunchShape): it has two.
void join(CudaStream stream, const SideStream& side);

}  // namespace braid::kernels

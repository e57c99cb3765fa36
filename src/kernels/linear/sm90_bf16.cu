#include "kernels/linear/enqueue.h"
#include "kernels/linear/launch_linear.cuh"

namespace braid::kernels::internal {

void enqueue_linear_bf16(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream) {
  constexpr WeightFormat kBf16 = WeightFormat::kBf16;
  switch (plan.tile_tokens) {
    case 8:
      return launch_linear_tile<kBf16, 8>(p, plan, stream);
    case 16:
      return launch_linear_tile<kBf16, 16>(p, plan, stream);
    case 32:
      return launch_linear_tile<kBf16, 32>(p, plan, stream);
    case 64:
      return launch_linear_tile<kBf16, 64>(p, plan, stream);
  }
}

}  // namespace braid::kernels::internal

#include "kernels/moe_gemm/sm90_large_gemm.cuh"

namespace braid::kernels {

void launch_large_down(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  if (p.adapters != nullptr) {
    launch_large_gemm<false, true>(p, plan, stream);
  } else {
    launch_large_gemm<false, false>(p, plan, stream);
  }
}

}  // namespace braid::kernels

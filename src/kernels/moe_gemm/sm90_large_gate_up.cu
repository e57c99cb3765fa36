#include "kernels/moe_gemm/sm90_large_gemm.cuh"

namespace braid::kernels {

void launch_large_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  if (p.adapters != nullptr) {
    launch_large_gemm<true, true>(p, plan, stream);
  } else {
    launch_large_gemm<true, false>(p, plan, stream);
  }
}

}  // namespace braid::kernels

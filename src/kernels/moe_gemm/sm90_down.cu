#include "kernels/moe_gemm/launch_gemm.cuh"

namespace braid::kernels {

void launch_moe_down(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  if (p.adapters != nullptr && !lora_is_apart(p, plan)) {
    launch_gemm_for_tile<MoeGemm::kDown, true>(p, plan, stream);
  } else {
    launch_gemm_for_tile<MoeGemm::kDown, false>(p, plan, stream);
  }
}

}  // namespace braid::kernels

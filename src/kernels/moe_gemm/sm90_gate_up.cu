#include "kernels/moe_gemm/launch_gemm.cuh"

namespace braid::kernels {

void launch_moe_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  if (lora_is_apart(p, plan)) {
    launch_raw_gate_up(p, plan, stream);
  } else if (p.adapters != nullptr) {
    launch_gemm_for_tile<MoeGemm::kGateUp, true>(p, plan, stream);
  } else {
    launch_gemm_for_tile<MoeGemm::kGateUp, false>(p, plan, stream);
  }
}

}  // namespace braid::kernels

#include "kernels/moe_gemm/launch_gemm.cuh"

namespace braid::kernels {

void launch_raw_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  launch_gemm_for_tile<MoeGemm::kGateUp, WeightFormat::kFp8Block128, /*kLora=*/false,
                       /*kRaw=*/true>(p, plan, stream);
}

}  // namespace braid::kernels

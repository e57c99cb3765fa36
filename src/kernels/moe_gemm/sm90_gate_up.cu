#include "kernels/moe_gemm/launch_gemm.cuh"

namespace braid::kernels {

template void launch_format_gemm<MoeGemm::kGateUp, WeightFormat::kFp8Block128>(
    const MoeLayerParams&, const MoePlan&, CudaStream);

}  // namespace braid::kernels

#include "kernels/moe_gemm/launch_gemm.cuh"

namespace braid::kernels {

template void launch_format_gemm<MoeGemm::kDown, WeightFormat::kNvfp4>(const MoeLayerParams&,
                                                                       const MoePlan&, CudaStream);

}  // namespace braid::kernels

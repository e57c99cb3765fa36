#pragma once

#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {

enum class MoeGemm { kGateUp, kDown };

// A GEMM of a layer on weights of one format, with the adapters' part inside where that is fused.
// Each is compiled in a file of its own.
template <MoeGemm kGemm, WeightFormat kFormat>
void launch_format_gemm(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);

// gate_up on FP8 weights that stores its sums, for an adapters' part of its own.
void launch_raw_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);

}  // namespace braid::kernels

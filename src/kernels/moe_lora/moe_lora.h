#pragma once

#include <cstdint>

#include "base/cuda_fwd.h"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {

// The adapters' part of the MoE layer by kernels of its own, for the LoRA plans that keep it out of
// the GEMMs. They read the lists that moe_routing writes and the factors as they are packed for the
// fused plan.
//
//   shrink      u = x A^T (gate_up), v = h A^T (down), by runs; by adapters where experts share A
//   expand      delta = B u, B v
//   activation  h = silu(gate + delta) * (up + delta), as BF16 and quantised, between the GEMMs
//
// The sum of pairs adds down's delta. Rows without an adapter have no delta: nothing is written or
// read there.

enum class MoeProjection { kGateUp, kDown };

// Parts into which a product with A of gate_up is cut, so that many CTAs can share the work of few
// tokens; readers add them in order.
inline constexpr int32_t kLoraParts = 2;

// Shrink and expand of one GEMM. In the two-stream plan `stream` is the side stream.
void launch_moe_lora_shrink(const MoeLayerParams& p, const MoePlan& plan, MoeProjection projection,
                            CudaStream stream);
void launch_moe_lora_expand(const MoeLayerParams& p, const MoePlan& plan, MoeProjection projection,
                            CudaStream stream);

void launch_moe_activation(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);

}  // namespace braid::kernels

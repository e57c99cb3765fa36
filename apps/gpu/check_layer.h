#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/device.h"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::apps {

// One layer as the bench has it on the device, and what it was given.
struct LayerToCheck {
  kernels::MoeSizes sizes;
  const DeviceBuffer* gate_up = nullptr;  // MoeWeights, packed
  const DeviceBuffer* down = nullptr;
  const DeviceBuffer* factors = nullptr;          // of all adapters; null: base model alone
  const kernels::MoeAdapterSlot* slot = nullptr;  // the token's adapter, or null; into *factors
  const float* logits = nullptr;                  // [T, E] on the host
  const Bf16* x = nullptr;                        // [T, H] on the host
};

// The token's output [H] in double from the packed bytes, with x and h rounded as the kernels of
// the format round them. Walks the packed order by itself: a fault of packing, routing or the GEMMs
// shows.
std::vector<double> reference_output(const LayerToCheck& layer, int32_t token);

// Empty where got is `want` up to a relative L2 of `tolerance`, otherwise both norms.
std::string why_far(const std::vector<double>& got, const std::vector<double>& want,
                    double tolerance);

}  // namespace braid::apps

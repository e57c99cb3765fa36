#pragma once

#include <cstdint>
#include <vector>

#include "kernels/lora/lora_pair.h"
#include "kernels/moe/moe.h"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {

// Checkpoint order to the order in which the GEMM kernels stream, on the host, at load.

// One expert's part of MoeWeights. Matrices are of the sizes' shapes and weight format; the results
// hold expert_gate_up_bytes and expert_down_bytes.
void pack_expert(const ExpertWeights& expert, uint8_t* gate_up, uint8_t* down);

int64_t expert_gate_up_bytes(const MoeSizes& sizes);
int64_t expert_down_bytes(const MoeSizes& sizes);

// An adapter's part on the experts of a layer. The rank of the layer is the largest any expert has,
// separately for gate_up and down, rounded up to 8; shorter ones are filled with zeros. Its scaling
// is the largest any expert has; B of the others is scaled down to it, and rounded to BF16 unless
// the quotient is a power of two. Factors that all experts share (the same pointers everywhere) are
// stored once, and so is an A that serves both gate and up.
struct MoeAdapterLayout {
  MoeAdapterSlot slot;  // its pointers are offsets from the first byte, multiples of 16
  int64_t bytes = 0;    // 0: no expert is adapted

  // The slot, packed factors lying at `bytes` (16-byte aligned).
  MoeAdapterSlot placed_at(const void* bytes) const;
};
// Of experts[all_experts()], factors of the sizes' shapes.
MoeAdapterLayout moe_adapter_layout(const MoeSizes& sizes, const ExpertLora* experts);

// Packs the factors as the layout of the same arguments says; writes all its bytes.
void pack_moe_adapter(const MoeSizes& sizes, const ExpertLora* experts,
                      const MoeAdapterLayout& layout, uint8_t* out);

// The same into memory of its own.
struct PackedMoeAdapter {
  std::vector<uint8_t> bytes;
  MoeAdapterLayout layout;

  MoeAdapterSlot placed_at(const void* device_bytes) const {
    return layout.placed_at(device_bytes);
  }
};
PackedMoeAdapter pack_moe_adapter(const MoeSizes& sizes, const ExpertLora* experts);

}  // namespace braid::kernels

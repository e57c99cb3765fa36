#pragma once

#include <cstdint>
#include <vector>

#include "kernels/lora/lora_pair.h"
#include "kernels/moe/moe.h"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {

// Checkpoint order to the order in which the GEMM kernels stream, on the host, at load.

// One expert's part of MoeWeights. Matrices are kFp8Block128 of the sizes' shapes; the results hold
// expert_gate_up_bytes and expert_down_bytes.
void pack_expert(const ExpertWeights& expert, uint8_t* gate_up, uint8_t* down);

int64_t expert_gate_up_bytes(const MoeSizes& sizes);
int64_t expert_down_bytes(const MoeSizes& sizes);

// An adapter's packed factors and the offsets at which its parts begin.
struct PackedMoeAdapter {
  std::vector<uint8_t> bytes;
  // Its pointers are offsets into `bytes` until placed_at() has made them addresses.
  MoeAdapterSlot slot;

  MoeAdapterSlot placed_at(const void* device_bytes) const;
};

// Packs what one adapter has on the layer's experts, experts[all_experts()]. The rank of the layer
// is the largest any expert has, separately for gate_up and down, rounded up to 8; shorter ones are
// filled with zeros. Factors that all experts share (the same pointers everywhere) are stored once,
// and so is an A that serves both gate and up.
PackedMoeAdapter pack_moe_adapter(const MoeSizes& sizes, const ExpertLora* experts);

}  // namespace braid::kernels

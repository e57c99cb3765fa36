#pragma once

#include <cstdint>
#include <string>

#include "kernels/lora/lora_pair.h"
#include "quant/weight_matrix.h"

namespace braid::kernels {

struct ExpertWeights {
  WeightMatrix gate;  // [I, H]
  WeightMatrix up;    // [I, H]
  WeightMatrix down;  // [H, I]
};

// A mixture of SwiGLU experts with LoRA on all three matrices. With e = topk_ids[t, k], s the
// token's adapter slot and L(.) the LoRA delta (nothing for kNoAdapter or rank 0):
//
//   g = x[t] gate_e^T + L(x[t]),  u = x[t] up_e^T + L(x[t]),  z = silu(g) * u
//   y[t] = routed_scaling * sum_k topk_weights[t, k] * (z down_e^T + L(z))
//
// The router's weight and routed_scaling apply once, to base plus delta. Pairs with kNoExpert add
// nothing. Each token's result has the same bits whatever else is in the batch.
//
// T tokens, K = top_k, E experts, H hidden_size, I intermediate size of one expert.
struct MoeParams {
  const float* x = nullptr;                // [T, H], contiguous
  const ExpertWeights* experts = nullptr;  // [E]
  const int32_t* topk_ids = nullptr;       // [T, K], in [0, E) or kNoExpert; distinct in a row
  const float* topk_weights = nullptr;     // [T, K]
  float* y = nullptr;                      // [T, H], contiguous; every element is written

  int32_t num_tokens = 0;
  int32_t top_k = 0;
  int32_t num_experts = 0;
  int32_t hidden_size = 0;
  int32_t moe_intermediate_size = 0;
  float routed_scaling = 1.0f;

  // Per slot the adapter's experts [E], or null where it has none; null: no adapter at all.
  const ExpertLora* const* lora_of_slot = nullptr;  // [num_slots]
  const int32_t* adapter_slot_of_token = nullptr;   // [T], in [0, num_slots) or kNoAdapter
  int32_t num_slots = 0;
};

std::string why_unsupported(const MoeParams& p);

}  // namespace braid::kernels

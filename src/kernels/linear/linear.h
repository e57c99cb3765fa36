#pragma once

#include <cstdint>
#include <string>

#include "kernels/lora/lora_pair.h"
#include "quant/weight_matrix.h"

namespace braid::kernels {

// y = x W^T, plus for each token the LoRA delta of its adapter:
//
//   y[t, o] = sum_i x[t, i] w[o, i] + s * sum_r (sum_i x[t, i] a[r, i]) b_t[r, o]
//
// T tokens. Each token's result has the same bits whatever else is in the batch.
struct LinearParams {
  const float* x = nullptr;  // [T, in], rows x_stride apart
  int64_t x_stride = 0;      // elements, >= in
  WeightMatrix w;            // [out, in]
  float* y = nullptr;        // [T, out], rows y_stride apart; every element is written
  int64_t y_stride = 0;      // elements, >= out
  int32_t num_tokens = 0;    // T >= 0
  bool y_is_logits = false;  // which stay float where activations are rounded

  const LoraPair* lora_of_slot = nullptr;          // [num_slots]; null: no adapter at all
  const int32_t* adapter_slot_of_token = nullptr;  // [T], in [0, num_slots) or kNoAdapter
  int32_t num_slots = 0;
};

// Empty when p is well-formed, otherwise one sentence naming the field and its value.
std::string why_unsupported(const LinearParams& p);

}  // namespace braid::kernels

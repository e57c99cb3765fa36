#pragma once

#include <cstdint>
#include <string>

#include "kernels/lora/lora_pair.h"
#include "quant/weight_matrix.h"

namespace braid::kernels {

// residual += delta (where delta is given), then y = residual * rsqrt(mean(residual^2) + eps) * w.
struct RmsNormParams {
  float* residual = nullptr;      // [T, H], contiguous; changed only where delta is given
  const float* delta = nullptr;   // [T, H] or null
  const float* weight = nullptr;  // [H]
  float* y = nullptr;             // [T, H]; every element is written
  int32_t num_tokens = 0;
  int32_t hidden_size = 0;
  float eps = 1e-6f;
};

// out[t] = table[token_ids[t]], plus the token's adapter on the embedding.
struct EmbeddingParams {
  const int32_t* token_ids = nullptr;  // [T], in [0, vocab)
  WeightMatrix table;                  // [vocab, H]
  float* out = nullptr;                // [T, H]
  int32_t num_tokens = 0;
  const EmbeddingLora* lora_of_slot = nullptr;     // [num_slots]; null: no adapter at all
  const int32_t* adapter_slot_of_token = nullptr;  // [T]
  int32_t num_slots = 0;
};

// z = silu(gate) * up, element by element: a dense SwiGLU's middle.
struct SiluMulParams {
  const float* gate = nullptr;  // [n]
  const float* up = nullptr;    // [n]
  float* z = nullptr;           // [n]
  int64_t num_elements = 0;
};

std::string why_unsupported(const RmsNormParams& p);
std::string why_unsupported(const EmbeddingParams& p);

}  // namespace braid::kernels

#pragma once

#include <cstdint>

#include "base/bf16.h"

namespace braid {

// The two factors of one adapter on one matrix: y += lora_scaling * (x A^T) B^T. Not owned.
struct LoraPair {
  const Bf16* a = nullptr;    // [rank, in], contiguous
  const Bf16* b_t = nullptr;  // [rank, out], contiguous: PEFT's lora_B transposed, so that the
                              // expand runs along the outputs at any rank
  int32_t rank = 0;           // 0: the adapter leaves this matrix alone
  float scaling = 0.0f;       // lora_scaling: alpha / rank, or alpha / sqrt(rank)
};

// The factors of one adapter on one expert. Where gate.a == up.a, one A serves both; where experts
// point to the same factor, it is shared (stored once): kernels may use either fact for speed.
struct ExpertLora {
  LoraPair gate;  // a [rank, H], b_t [rank, I]
  LoraPair up;    // a [rank, H], b_t [rank, I]
  LoraPair down;  // a [rank, I], b_t [rank, H]
};

// An adapter on the embedding table: out += lora_scaling * B * a_t[token]. Not owned.
struct EmbeddingLora {
  const Bf16* a_t = nullptr;  // [vocab, rank]: PEFT's lora_embedding_A, transposed
  const Bf16* b = nullptr;    // [hidden, rank]
  int32_t rank = 0;
  float scaling = 0.0f;
};

}  // namespace braid

#pragma once

#include <cstdint>
#include <vector>

#include "base/bf16.h"
#include "kernels/elementwise/elementwise_bf16.h"
#include "kernels/lora/lora_pair.h"

namespace braid::kernels {

// An adapter's packed factors on the embedding table and the offsets at which its parts begin.
struct PackedEmbeddingAdapter {
  std::vector<Bf16> values;   // empty where it is not adapted
  EmbeddingAdapterSlot slot;  // its pointers are byte offsets from the first value

  // The slot, the values lying at `bytes` (16-byte aligned).
  EmbeddingAdapterSlot placed_at(const void* bytes) const;
};

// Packs what one adapter has on a table [vocab_size, hidden_size]; B gets zeros up to
// padded_hidden_size columns, a multiple of 8, and both up to a multiple of 8 ranks. Throws
// InternalError on a rank past kMaxEmbeddingRank.
PackedEmbeddingAdapter pack_embedding_adapter(const EmbeddingLora& lora, int32_t vocab_size,
                                              int32_t hidden_size, int32_t padded_hidden_size);

}  // namespace braid::kernels

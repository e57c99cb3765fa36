#include "kernels/elementwise/pack.h"

#include <algorithm>

#include "base/check.h"

namespace braid::kernels {

EmbeddingAdapterSlot PackedEmbeddingAdapter::placed_at(const void* bytes) const {
  EmbeddingAdapterSlot placed = slot;
  for (const Bf16** part : {&placed.a_t, &placed.b_t}) {
    *part = reinterpret_cast<const Bf16*>(static_cast<const uint8_t*>(bytes) +
                                          reinterpret_cast<uintptr_t>(*part));
  }
  return placed;
}

PackedEmbeddingAdapter pack_embedding_adapter(const EmbeddingLora& lora, int32_t vocab_size,
                                              int32_t hidden_size, int32_t padded_hidden_size) {
  BRAID_CHECK_LE(lora.rank, kMaxEmbeddingRank);
  BRAID_CHECK_LE(hidden_size, padded_hidden_size);
  BRAID_CHECK_EQ(padded_hidden_size % 8, 0);
  if (lora.rank == 0) return {};
  const int32_t rank = (lora.rank + 7) / 8 * 8;
  const auto row = static_cast<size_t>(rank), width = static_cast<size_t>(padded_hidden_size);
  PackedEmbeddingAdapter packed;
  packed.values.resize(row * (static_cast<size_t>(vocab_size) + width));
  for (int32_t v = 0; v < vocab_size; ++v)
    std::copy_n(lora.a_t + int64_t{v} * lora.rank, lora.rank, packed.values.data() + v * row);
  Bf16* const b_t = packed.values.data() + row * static_cast<size_t>(vocab_size);
  for (int32_t h = 0; h < hidden_size; ++h) {
    for (int32_t r = 0; r < lora.rank; ++r) b_t[r * width + h] = lora.b[int64_t{h} * lora.rank + r];
  }
  packed.slot = {
      .a_t = nullptr,
      .b_t = reinterpret_cast<const Bf16*>(sizeof(Bf16) * row * static_cast<size_t>(vocab_size)),
      .rank = rank,
      .scaling = lora.scaling};
  return packed;
}

}  // namespace braid::kernels

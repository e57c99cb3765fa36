#pragma once

#include <cstdint>
#include <string>

#include "base/bf16.h"
#include "base/cuda_fwd.h"

namespace braid::kernels {

// Elementwise kernels on the device with BF16 activations: what elementwise.h has in float for the
// CPU. Arithmetic is in float, rounded once when stored.
//
// T tokens, H hidden_size, I intermediate size.

// residual = bf16(residual + delta) where delta is given, then
// y = residual * rsqrt(mean(residual^2) + eps) * weight. Rows may be padded with zeros: the mean is
// over their first mean_size elements.
struct RmsNormBf16Params {
  Bf16* residual = nullptr;      // [T, H], contiguous; changed only where delta is given
  const Bf16* delta = nullptr;   // [T, H] or null
  const Bf16* weight = nullptr;  // [H]
  Bf16* y = nullptr;             // [T, H]; every element is written
  int32_t num_tokens = 0;        // T; 0 launches nothing
  int32_t hidden_size = 0;       // H, multiple of 8 up to kMaxNormHidden
  int32_t mean_size = 0;         // in [1, H]; 0: H
  float eps = 1e-6f;
};
inline constexpr int32_t kMaxNormHidden = 16384;

// The factors of one adapter on the embedding table, packed by pack_embedding_adapter (pack.h).
struct EmbeddingAdapterSlot {
  const Bf16* a_t = nullptr;  // [vocab, rank]
  const Bf16* b_t = nullptr;  // [rank, H]
  int32_t rank = 0;           // multiple of 8 up to kMaxEmbeddingRank; 0: not adapted
  float scaling = 0.0f;
};
inline constexpr int32_t kMaxEmbeddingRank = 256;

// out[t] = table[token_ids[t]] + scaling * a_t[token_ids[t]] b_t, the factors of t's adapter. A
// token without one gets the table's row as it is. token_ids and table, which may be rows of any
// matrix, may come from the previous kernel.
struct EmbeddingBf16Params {
  const int32_t* token_ids = nullptr;              // [T], in [0, vocab)
  const Bf16* table = nullptr;                     // [vocab, H]
  Bf16* out = nullptr;                             // [T, H]; every element is written
  int32_t num_tokens = 0;                          // T; 0 launches nothing
  int32_t hidden_size = 0;                         // H, multiple of 8
  const EmbeddingAdapterSlot* adapters = nullptr;  // [S] on the device; null: base model alone
  const int32_t* adapter_slot_of_token = nullptr;  // [T], in [0, S) or kNoAdapter
};

// z = silu(gate) * up: a dense SwiGLU's middle. Gate and up may be halves of fused rows.
struct SiluMulBf16Params {
  const Bf16* gate = nullptr;     // [T, I], rows gate_stride apart
  const Bf16* up = nullptr;       // [T, I], rows up_stride apart
  Bf16* z = nullptr;              // [T, I], contiguous; every element is written
  int64_t gate_stride = 0;        // elements, multiple of 8
  int64_t up_stride = 0;          // elements, multiple of 8
  int32_t num_tokens = 0;         // T; 0 launches nothing
  int32_t intermediate_size = 0;  // I, multiple of 8
};

// Empty when the kernel can run p; otherwise one sentence naming the field and its value.
std::string why_unsupported(const RmsNormBf16Params& p);
std::string why_unsupported(const EmbeddingBf16Params& p);
std::string why_unsupported(const SiluMulBf16Params& p);

// Enqueue on stream, never synchronise, never allocate: safe under graph capture. A token's bits do
// not depend on what else is in the batch. A norm's weight is read before the previous kernel of
// the stream has finished: it must not come from it. Throw InternalError if why_unsupported is not
// empty, CudaError if the launch is refused.
void launch_rms_norm(const RmsNormBf16Params& p, CudaStream stream);
void launch_embedding(const EmbeddingBf16Params& p, CudaStream stream);
void launch_silu_mul(const SiluMulBf16Params& p, CudaStream stream);

}  // namespace braid::kernels

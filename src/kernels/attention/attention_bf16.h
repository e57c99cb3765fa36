#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bf16.h"
#include "base/cuda_fwd.h"
#include "kernels/attention/paged_kv.h"

namespace braid::kernels {

// Attention on the device with BF16 activations, for sm_90a: what attention.h has in float for the
// CPU. docs/kernels/attention.md has the pictures.
//
// T tokens, S sequences, D head_dim.

// Per-head RMSNorm of q and k where norms are given, rotary embedding (rotate-half form over the
// first rotary_dim elements), and the write of k and v into the paged cache, in one pass over the
// fused rows of q, k and v. Float inside, rounded once when stored.
struct RopeKvWriteBf16Params {
  // [T, (num_heads + 2 * num_kv_heads) * D], rows qkv_stride apart; a row has the token's q heads,
  // then its k heads, then its v heads. q is changed in place, k and v are left as they are.
  Bf16* qkv = nullptr;
  int64_t qkv_stride = 0;                     // elements, multiple of 8
  const Bf16* q_norm = nullptr;               // [D] or null
  const Bf16* k_norm = nullptr;               // [D] or null
  float rms_norm_eps = 1e-6f;                 //
  const float* inv_freq = nullptr;            // [rotary_dim / 2]; null where rotary_dim is 0
  const int32_t* positions = nullptr;         // [T], >= 0
  const int32_t* kv_slot_of_token = nullptr;  // [T], distinct; -1: k and v are not kept
  PagedKv kv;
  int32_t num_tokens = 0;  // T; 0 launches nothing
  int32_t num_heads = 0;
  int32_t rotary_dim = 0;  // multiple of 16, <= D
};

// Keys of one unit of decode work at least, and units of a sequence and KV head at most: a function
// of its own length, so that a token's bits do not depend on what else is in the batch.
inline constexpr int32_t kSplitKeys = 256;
inline constexpr int32_t kMaxSplits = 32;
constexpr int32_t keys_per_split(int32_t context_len) {
  return kSplitKeys * ((context_len + kSplitKeys * kMaxSplits - 1) / (kSplitKeys * kMaxSplits));
}
constexpr int32_t num_splits(int32_t context_len) {
  return context_len <= 0
             ? 0
             : (context_len + keys_per_split(context_len) - 1) / keys_per_split(context_len);
}

inline constexpr int32_t kMaxAttentionSequences = 1024;

// Device memory of decode attention for partial sums, shared by all layers. Filled by
// attention_workspace(). Zeroed once before its first use.
struct AttentionWorkspace {
  float* max_and_sum = nullptr;  // [S, num_kv_heads, kMaxSplits, group, 2], zero between launches
  float* partial_out = nullptr;  // [S, num_kv_heads, kMaxSplits, group, D], zero between launches
  int32_t max_sequences = 0;
  int32_t num_heads = 0;  // that it was made for
  int32_t head_dim = 0;
};

// Bytes and layout for up to max_sequences sequences. `base` is 256-byte aligned; null only counts.
AttentionWorkspace attention_workspace(int32_t max_sequences, int32_t num_heads, int32_t head_dim,
                                       void* base, size_t* bytes);

// Causal attention of each query token over the paged cache of its sequence, grouped heads:
//
//   out[t, h] = softmax(softmax_scale * q[t, h] . keys[0 .. p]) values[0 .. p]
//
// where p is the token's position: query j of a sequence with n queries and context_len c stands at
// p = c - n + j. Its keys are already in the cache. A token's bits do not depend on how its prompt
// was cut into chunks or what else is in the batch; decode and prefill are two kernels that sum in
// different orders.
//
// Batches of both: one call of each, or launch_attention_mixed, on slices of query_indptr,
// context_len and block_table. Tokens of no sequence of a call are neither read nor written.
struct AttentionBf16Params {
  const Bf16* q = nullptr;  // [T, num_heads, D], rows q_stride apart
  int64_t q_stride = 0;     // elements, multiple of 8
  Bf16* out = nullptr;      // [T, num_heads, D], contiguous; rows of queries are all written
  PagedKv kv;               // read only
  const int32_t* query_indptr =
      nullptr;  // [S + 1]: sequence s has queries [indptr[s], indptr[s + 1]), none is allowed
  const int32_t* context_len = nullptr;  // [S], keys of the sequence including these queries
  const int32_t* block_table =
      nullptr;                // [S, max_kv_blocks], rows hold ceil(context_len / block_size)
  int32_t num_sequences = 0;  // S, up to kMaxAttentionSequences; 0 launches nothing
  int32_t max_kv_blocks = 0;
  int32_t num_heads = 0;       // group * num_kv_heads, group up to 16
  float softmax_scale = 0.0f;  // > 0
  // Decode: keys besides a sequence's last may come from the previous kernel, which is waited for.
  bool has_new_keys = false;
};

// Empty when the kernels can run p; otherwise one sentence naming the field and its value.
std::string why_unsupported(const RopeKvWriteBf16Params& p);
std::string why_unsupported(const AttentionBf16Params& p);
std::string why_unsupported(const AttentionBf16Params& p, const AttentionWorkspace& workspace);

// All enqueue on stream, never synchronise, never allocate: safe under graph capture. Launch
// geometry follows from the sizes in the structs; lengths are read on the device. They throw
// InternalError if why_unsupported is not empty, CudaError if a launch is refused.

// inv_freq, positions, kv_slot_of_token and the norms are read before the previous kernel of the
// stream has finished: they must not come from it.
void launch_rope_kv_write(const RopeKvWriteBf16Params& p, CudaStream stream);

// Sequences of one query (or none). query_indptr, context_len, block_table and, unless
// has_new_keys, all keys but the last are read before the previous kernel of the stream has
// finished: they must not come from it.
void launch_attention_decode(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                             int32_t num_sms, CudaStream stream);

// What launch_rope_kv_write and then launch_attention_decode do, with the same bits, in one launch,
// but that q stays as it is. p.q is rope.qkv; tokens of no sequence are left alone. A sequence's
// query stands at position context_len - 1: positions are not read. No sequence may read another's
// newest key, as it may with has_new_keys. A token that keeps nothing (slot -1) sees its own key
// all the same. What must not come from the previous kernel is what the two say.
void launch_rope_attention_decode(const RopeKvWriteBf16Params& rope, const AttentionBf16Params& p,
                                  const AttentionWorkspace& workspace, int32_t num_sms,
                                  CudaStream stream);

// Sequences of any number of queries, together at most max_tokens, which sizes the grid.
void launch_attention_prefill(const AttentionBf16Params& p, int32_t max_tokens, CudaStream stream);

// launch_attention_prefill(prompts, max_tokens) and launch_rope_attention_decode(rope, replies) of
// one batch, side by side where the prompts leave SMs free: tensor cores bind the one, memory the
// other. Neither may read keys that the other writes. Same bits.
void launch_attention_mixed(const AttentionBf16Params& prompts, int32_t max_tokens,
                            const RopeKvWriteBf16Params& rope, const AttentionBf16Params& replies,
                            const AttentionWorkspace& workspace, int32_t num_sms,
                            CudaStream stream);

}  // namespace braid::kernels

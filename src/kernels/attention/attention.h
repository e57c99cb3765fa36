#pragma once

#include <cstdint>
#include <string>

namespace braid::kernels {

// Per-head RMSNorm of q and k where norms are given, rotary embedding (rotate-half form over the
// first rotary_dim elements), and the write of k and v into the paged cache, in one pass.
//
//   KV cache of a layer: keys and values, each [num_blocks, block_size, num_kv_heads, head_dim];
//   kv_slot = kv_block * block_size + offset in the block.
struct RopeKvWriteParams {
  float* q = nullptr;        // [T, num_heads, head_dim], changed in place, rows q_stride apart
  float* k = nullptr;        // [T, num_kv_heads, head_dim], changed in place
  const float* v = nullptr;  // [T, num_kv_heads, head_dim]
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;  // [head_dim] or null
  float rms_norm_eps = 1e-6f;
  const float* inv_freq = nullptr;            // [rotary_dim / 2]
  const int32_t* positions = nullptr;         // [T], >= 0
  const int32_t* kv_slot_of_token = nullptr;  // [T], distinct
  float* k_cache = nullptr;
  float* v_cache = nullptr;
  int32_t num_tokens = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t rotary_dim = 0;  // even, <= head_dim
};

// Causal attention of each query token over the paged cache of its sequence, grouped heads:
//
//   out[t, h] = softmax(softmax_scale * q[t, h] . keys[0 .. p]) values[0 .. p]
//
// where p is the token's position: query j of a sequence with n queries and context_len c stands at
// p = c - n + j. Its keys are already in the cache. Keys are summed in position order whatever the
// chunking, so a token's result does not depend on how its prompt was cut or what else is there.
struct AttentionParams {
  const float* q = nullptr;  // [T, num_heads, head_dim], rows q_stride apart
  int64_t q_stride = 0;
  float* out = nullptr;  // [T, num_heads, head_dim], contiguous; every element is written
  const float* k_cache = nullptr;
  const float* v_cache = nullptr;
  const int32_t* query_indptr =
      nullptr;  // [S + 1]: sequence s has queries [indptr[s], indptr[s + 1])
  const int32_t* context_len = nullptr;  // [S], keys of the sequence including these queries
  const int32_t* block_table =
      nullptr;  // [S, max_kv_blocks], rows hold ceil(context_len / block_size)
  int32_t num_sequences = 0;
  int32_t max_kv_blocks = 0;
  int32_t block_size = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;  // divides num_heads
  int32_t head_dim = 0;
  float softmax_scale = 0.0f;
};

std::string why_unsupported(const RopeKvWriteParams& p);
std::string why_unsupported(const AttentionParams& p);

}  // namespace braid::kernels

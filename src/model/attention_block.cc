#include "model/attention_block.h"

#include <array>
#include <cmath>

#include "model/buffer.h"
#include "model/rope.h"
#include "ops/ops.h"

namespace braid {

AttentionBlock::AttentionBlock(const ModelConfig& config)
    : config_(config), inv_freq_(rope_inv_freq(config)) {}

void AttentionBlock::run(const Step& step, const AttentionWeights& weights, int32_t layer,
                         const float* x, float* out) {
  const ForwardBatch& batch = step.batch;
  const int32_t num_tokens = step.num_tokens();
  const int32_t q_size = config_.q_size(), kv_size = config_.kv_size();
  float* q = ensure(q_, int64_t{num_tokens} * q_size);
  float* k = ensure(k_, int64_t{num_tokens} * kv_size);
  float* v = ensure(v_, int64_t{num_tokens} * kv_size);
  float* attended = ensure(attended_, int64_t{num_tokens} * q_size);

  const std::array qkv = {linear_params(step, layer, LoraTarget::kQProj, weights.q_proj, x, q),
                          linear_params(step, layer, LoraTarget::kKProj, weights.k_proj, x, k),
                          linear_params(step, layer, LoraTarget::kVProj, weights.v_proj, x, v)};
  ops::linear(step.context, qkv);

  ops::rope_kv_write(step.context,
                     {.q = q,
                      .k = k,
                      .v = v,
                      .q_stride = q_size,
                      .k_stride = kv_size,
                      .v_stride = kv_size,
                      .q_norm = weights.q_norm.empty() ? nullptr : weights.q_norm.data(),
                      .k_norm = weights.k_norm.empty() ? nullptr : weights.k_norm.data(),
                      .rms_norm_eps = config_.rms_norm_eps,
                      .inv_freq = inv_freq_.data(),
                      .positions = batch.positions.data(),
                      .kv_slot_of_token = batch.kv_slot_of_token.data(),
                      .k_cache = step.kv.keys(layer),
                      .v_cache = step.kv.values(layer),
                      .num_tokens = num_tokens,
                      .num_heads = config_.num_attention_heads,
                      .num_kv_heads = config_.num_key_value_heads,
                      .head_dim = config_.head_dim,
                      .rotary_dim = config_.head_dim});
  ops::attention(step.context,
                 {.q = q,
                  .q_stride = q_size,
                  .out = attended,
                  .k_cache = step.kv.keys(layer),
                  .v_cache = step.kv.values(layer),
                  .query_indptr = batch.query_indptr.data(),
                  .context_len = batch.context_len.data(),
                  .block_table = batch.block_table.data(),
                  .num_sequences = batch.num_sequences(),
                  .max_kv_blocks = batch.max_kv_blocks,
                  .block_size = step.kv.shape().block_size,
                  .num_heads = config_.num_attention_heads,
                  .num_kv_heads = config_.num_key_value_heads,
                  .head_dim = config_.head_dim,
                  .softmax_scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim))});

  const std::array output = {
      linear_params(step, layer, LoraTarget::kOProj, weights.o_proj, attended, out)};
  ops::linear(step.context, output);
}

}  // namespace braid

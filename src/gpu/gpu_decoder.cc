#include "gpu/gpu_decoder.h"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise/elementwise_bf16.h"
#include "model/rope.h"

namespace braid {
namespace {

size_t elements(int64_t rows, int64_t cols) { return static_cast<size_t>(rows * cols); }

// Ranks of one adapter on all slices of a layer.
int32_t total_rank(int32_t max_lora_rank) {
  return kernels::kMaxLinearSlices * ((max_lora_rank + 7) / 8 * 8);
}

// Columns of the widest layer that may be FP8.
int32_t widest_input(const ModelConfig& config) {
  return std::max({config.hidden_size, config.q_size(), config.intermediate_size});
}

// What the plans that may run share: their layouts may lie in the same memory.
size_t moe_memory_bytes(const kernels::MoeSizes& sizes, const StepLimits& limits, int32_t rank) {
  size_t most = 0;
  for (const auto plan : {kernels::MoeLoraPlan::kFused, kernels::MoeLoraPlan::kSerial}) {
    size_t bytes = 0;
    kernels::moe_workspace(sizes, limits.max_tokens, limits.num_adapter_slots, rank, nullptr,
                           &bytes, plan);
    most = std::max(most, bytes);
  }
  return most;
}

DeviceBuffer zeros(size_t bytes) {
  DeviceBuffer buffer(bytes);
  if (bytes > 0) buffer.fill(0);
  return buffer;
}

}  // namespace

GpuDecoder::GpuDecoder(const ModelConfig& config, const GpuWeights& weights,
                       const StepLimits& limits, const KvCacheShape& kv_shape,
                       int32_t max_lora_rank)
    : config_(config),
      weights_(weights),
      limits_(limits),
      kv_shape_(kv_shape),
      num_sms_(device_facts().num_sms),
      max_lora_rank_(max_lora_rank) {
  inv_freq_ = DeviceBuffer::of(rope_inv_freq(config));
  kv_ = DeviceBuffer(kv_shape.bytes_per_block() * static_cast<size_t>(kv_shape.num_blocks));

  const int64_t tokens = limits.max_tokens, hidden = weights.moe.hidden_size;
  const auto bf16 = [](int64_t rows, int64_t cols) {
    return zeros(elements(rows, cols) * sizeof(Bf16));  // padding stays zero
  };
  residual_ = bf16(tokens, hidden);
  normed_ = bf16(tokens, hidden);
  delta_ = bf16(tokens, hidden);
  qkv_ = bf16(tokens, config.q_size() + 2 * config.kv_size());
  attended_ = bf16(tokens, config.q_size());
  gate_up_ = bf16(tokens, 2 * int64_t{config.intermediate_size});
  activated_ = bf16(tokens, config.intermediate_size);
  router_logits_ = DeviceBuffer(elements(tokens, config.num_experts) * sizeof(float));
  topk_ids_ = DeviceBuffer(elements(tokens, config.top_k) * sizeof(int32_t));
  wanted_ = bf16(limits.max_logits, hidden);
  logits_ = DeviceBuffer(elements(limits.max_logits, logits_stride()) * sizeof(float));

  size_t bytes = 0;
  const auto attention_at = [&](void* base) {
    return kernels::attention_workspace(limits.max_sequences, config.num_attention_heads,
                                        config.head_dim, base, &bytes);
  };
  attention_at(nullptr);
  attention_memory_ = zeros(bytes);
  attention_workspace_ = attention_at(attention_memory_.data());
  const auto linear_at = [&](void* base) {
    return kernels::linear_workspace(limits.max_tokens, widest_input(config),
                                     total_rank(max_lora_rank), base, &bytes);
  };
  linear_at(nullptr);
  linear_memory_ = zeros(bytes);
  linear_workspace_ = linear_at(linear_memory_.data());
  moe_memory_ = zeros(moe_memory_bytes(weights.moe, limits, std::max(8, max_lora_rank)));
}

void GpuDecoder::enqueue(const StepShape& shape, const StepInputs& inputs,
                         const AdapterTables* adapters, CudaStream stream) {
  const Launch step = {.shape = shape, .inputs = inputs, .adapters = adapters, .stream = stream};
  const int32_t hidden = weights_.moe.hidden_size;
  kernels::launch_embedding(
      {.token_ids = inputs.token_ids(),
       .table = weights_.embedding.as<Bf16>(),
       .out = residual_.as<Bf16>(),
       .num_tokens = shape.num_tokens,
       .hidden_size = hidden,
       .adapters = adapters == nullptr ? nullptr : adapters->embedding,
       .adapter_slot_of_token = adapters == nullptr ? nullptr : inputs.adapter_slot_of_token()},
      stream);
  mark("embedding");
  tap(-1, "embedding", residual_);
  norm(step, norm_after(-1), /*add_delta=*/false);
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    tap(layer, "attention_in", normed_);
    attention(step, layer);
    norm(step, weights_.layers[static_cast<size_t>(layer)].post_attention_norm, true);
    tap(layer, "mlp_in", normed_);
    if (config_.is_moe_layer[static_cast<size_t>(layer)]) {
      mixture(step, layer);
    } else {
      dense_mlp(step, layer);
      norm(step, norm_after(layer), true);
    }
  }
  tap(-1, "final_norm", normed_);
  if (shape.num_logits == 0) return;

  const Bf16* rows = normed_.as<Bf16>();
  if (shape.num_logits < shape.num_tokens) {
    kernels::launch_embedding({.token_ids = inputs.logits_token(),
                               .table = rows,
                               .out = wanted_.as<Bf16>(),
                               .num_tokens = shape.num_logits,
                               .hidden_size = hidden},
                              stream);
    rows = wanted_.as<Bf16>();
  }
  linear({.num_rows = shape.num_logits,
          .layer = weights_.lm_head,
          .adapters = adapters == nullptr ? nullptr : adapters->lm_head,
          .order = inputs.logits_adapter_order(shape.num_logits),
          .x = rows,
          .x_stride = hidden,
          .y_float = logits_.as<float>(),
          .y_stride = logits_stride()},
         stream);
  mark("lm_head");
}

const DeviceBuffer& GpuDecoder::norm_after(int32_t layer) const {
  const auto next = static_cast<size_t>(layer + 1);
  return next < weights_.layers.size() ? weights_.layers[next].input_norm : weights_.final_norm;
}

void GpuDecoder::norm(const Launch& step, const DeviceBuffer& weight, bool add_delta) {
  kernels::launch_rms_norm({.residual = residual_.as<Bf16>(),
                            .delta = add_delta ? delta_.as<Bf16>() : nullptr,
                            .weight = weight.as<Bf16>(),
                            .y = normed_.as<Bf16>(),
                            .num_tokens = step.shape.num_tokens,
                            .hidden_size = weights_.moe.hidden_size,
                            .mean_size = config_.hidden_size,
                            .eps = config_.rms_norm_eps},
                           step.stream);
  mark("norm");
}

void GpuDecoder::linear(const Linear& l, CudaStream stream) {
  kernels::launch_linear({.x = l.x,
                          .x_stride = l.x_stride,
                          .shape = l.layer.shape,
                          .weights = l.layer.weights.as<uint8_t>(),
                          .y = l.y,
                          .y_float = l.y_float,
                          .y_stride = l.y_stride,
                          .num_tokens = l.num_rows,
                          .adapters = l.adapters,
                          .order = l.order,
                          .workspace = linear_workspace_},
                         kernels::plan_linear(l.layer.shape, l.num_rows), stream);
}

kernels::PagedKv GpuDecoder::paged_kv(int32_t layer) const {
  const size_t half = kv_.bytes() / 2 / static_cast<size_t>(config_.num_hidden_layers);
  auto* const keys = kv_.as<uint8_t>() + 2 * static_cast<size_t>(layer) * half;
  return {.k_cache = keys,
          .v_cache = keys + half,
          .num_kv_heads = config_.num_key_value_heads,
          .block_size = kv_shape_.block_size,
          .head_dim = config_.head_dim};
}

void GpuDecoder::attention(const Launch& step, int32_t layer) {
  const GpuLayer& weights = weights_.layers[static_cast<size_t>(layer)];
  const LayerAdapterTables* const adapters = step.adapters_of(layer);
  const int32_t num_tokens = step.shape.num_tokens, hidden = weights_.moe.hidden_size;
  const int32_t row = config_.q_size() + 2 * config_.kv_size();
  const kernels::AdapterOrder order = step.inputs.adapter_order(num_tokens);
  linear({.num_rows = num_tokens,
          .layer = weights.qkv_proj,
          .adapters = adapters == nullptr ? nullptr : adapters->qkv_proj,
          .order = order,
          .x = normed_.as<Bf16>(),
          .x_stride = hidden,
          .y = qkv_.as<Bf16>(),
          .y_stride = row},
         step.stream);
  mark("qkv");
  tap(layer, "qkv", qkv_);
  const kernels::PagedKv kv = paged_kv(layer);
  const kernels::RopeKvWriteBf16Params rope = {.qkv = qkv_.as<Bf16>(),
                                               .qkv_stride = row,
                                               .q_norm = weights.q_norm.as<Bf16>(),
                                               .k_norm = weights.k_norm.as<Bf16>(),
                                               .rms_norm_eps = config_.rms_norm_eps,
                                               .inv_freq = inv_freq_.as<float>(),
                                               .positions = step.inputs.positions(),
                                               .kv_slot_of_token = step.inputs.kv_slot_of_token(),
                                               .kv = kv,
                                               .num_tokens = num_tokens,
                                               .num_heads = config_.num_attention_heads,
                                               .rotary_dim = config_.head_dim};
  const kernels::AttentionBf16Params p = {
      .q = qkv_.as<Bf16>(),
      .q_stride = row,
      .out = attended_.as<Bf16>(),
      .kv = kv,
      .query_indptr = step.inputs.query_indptr(),
      .context_len = step.inputs.context_len(),
      .block_table = step.inputs.block_table(),
      .num_sequences = step.shape.num_decodes,
      .max_kv_blocks = limits_.max_kv_blocks,
      .num_heads = config_.num_attention_heads,
      .softmax_scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
      .has_new_keys = step.shape.has_neighbours};
  const int32_t decodes = step.shape.num_decodes;
  // Decode attention does it for its own tokens, unless one of them reads another's key.
  kernels::RopeKvWriteBf16Params apart = rope;
  const int32_t first = step.shape.has_neighbours ? 0 : decodes;
  apart.qkv += first * row;
  apart.positions += first;
  apart.kv_slot_of_token += first;
  apart.num_tokens -= first;
  kernels::launch_rope_kv_write(apart, step.stream);
  if (apart.num_tokens > 0) mark("rope, KV write");
  kernels::AttentionBf16Params prompts = p;
  prompts.query_indptr += decodes;
  prompts.context_len += decodes;
  prompts.block_table += int64_t{decodes} * limits_.max_kv_blocks;
  prompts.num_sequences = step.shape.num_prefills;
  if (step.shape.has_neighbours) {
    kernels::launch_attention_decode(p, attention_workspace_, num_sms_, step.stream);
    kernels::launch_attention_prefill(prompts, num_tokens - decodes, step.stream);
  } else {
    kernels::launch_attention_mixed(prompts, num_tokens - decodes, rope, p, attention_workspace_,
                                    num_sms_, step.stream);
  }
  mark("attention");
  tap(layer, "attended", attended_);
  linear({.num_rows = num_tokens,
          .layer = weights.o_proj,
          .adapters = adapters == nullptr ? nullptr : adapters->o_proj,
          .order = order,
          .x = attended_.as<Bf16>(),
          .x_stride = config_.q_size(),
          .y = delta_.as<Bf16>(),
          .y_stride = hidden},
         step.stream);
  mark("o");
  tap(layer, "attention_out", delta_);
}

void GpuDecoder::mixture(const Launch& step, int32_t layer) {
  const GpuLayer& weights = weights_.layers[static_cast<size_t>(layer)];
  const LayerAdapterTables* const adapters = step.adapters_of(layer);
  const int32_t num_tokens = step.shape.num_tokens, hidden = weights_.moe.hidden_size;
  linear({.num_rows = num_tokens,
          .layer = weights.router,
          .adapters = adapters == nullptr ? nullptr : adapters->router,
          .order = step.inputs.adapter_order(num_tokens),
          .x = normed_.as<Bf16>(),
          .x_stride = hidden,
          .y_float = router_logits_.as<float>(),
          .y_stride = config_.num_experts},
         step.stream);
  mark("router");
  tap(layer, "router_logits", router_logits_);
  const kernels::MoePlan plan =
      kernels::plan_moe_layer(weights_.moe, num_tokens, adapters != nullptr, num_sms_);
  kernels::MoeLayerParams p = {
      .sizes = weights_.moe,
      .num_tokens = num_tokens,
      .x = normed_.as<Bf16>(),
      .y = tap_ ? delta_.as<Bf16>() : nullptr,
      .norm = {.residual = residual_.as<Bf16>(),
               .weight = norm_after(layer).as<Bf16>(),
               .y = normed_.as<Bf16>(),
               .mean_size = config_.hidden_size,
               .eps = config_.rms_norm_eps},
      .logits = router_logits_.as<float>(),
      .topk_ids = topk_ids_.as<int32_t>(),
      .norm_topk_prob = config_.norm_topk_prob,
      .weights = {.gate_up = weights.gate_up.as<uint8_t>(), .down = weights.down.as<uint8_t>()},
      .workspace = kernels::moe_workspace(weights_.moe, limits_.max_tokens,
                                          limits_.num_adapter_slots, std::max(8, max_lora_rank_),
                                          moe_memory_.data(), nullptr, plan.lora_plan)};
  if (adapters != nullptr) {
    p.adapters = adapters->experts;
    p.adapter_slot_of_token = step.inputs.adapter_slot_of_token();
    p.num_slots = limits_.num_adapter_slots;
  }
  kernels::launch_moe_layer(p, plan, step.stream, side_.get());
  mark("mixture");
  tap(layer, "moe_out", delta_);
}

void GpuDecoder::dense_mlp(const Launch& step, int32_t layer) {
  const GpuLayer& weights = weights_.layers[static_cast<size_t>(layer)];
  const LayerAdapterTables* const adapters = step.adapters_of(layer);
  const int32_t num_tokens = step.shape.num_tokens, inner = config_.intermediate_size;
  const kernels::AdapterOrder order = step.inputs.adapter_order(num_tokens);
  linear({.num_rows = num_tokens,
          .layer = weights.gate_up_proj,
          .adapters = adapters == nullptr ? nullptr : adapters->gate_up_proj,
          .order = order,
          .x = normed_.as<Bf16>(),
          .x_stride = weights_.moe.hidden_size,
          .y = gate_up_.as<Bf16>(),
          .y_stride = 2 * int64_t{inner}},
         step.stream);
  mark("gate_up");
  tap(layer, "gate_up", gate_up_);
  kernels::launch_silu_mul({.gate = gate_up_.as<Bf16>(),
                            .up = gate_up_.as<Bf16>() + inner,
                            .z = activated_.as<Bf16>(),
                            .gate_stride = 2 * int64_t{inner},
                            .up_stride = 2 * int64_t{inner},
                            .num_tokens = num_tokens,
                            .intermediate_size = inner},
                           step.stream);
  mark("silu");
  tap(layer, "activated", activated_);
  linear({.num_rows = num_tokens,
          .layer = weights.down_proj,
          .adapters = adapters == nullptr ? nullptr : adapters->down_proj,
          .order = order,
          .x = activated_.as<Bf16>(),
          .x_stride = inner,
          .y = delta_.as<Bf16>(),
          .y_stride = weights_.moe.hidden_size},
         step.stream);
  mark("down");
  tap(layer, "mlp_out", delta_);
}

size_t GpuDecoder::buffer_bytes(const ModelConfig& config, const StepLimits& limits,
                                int32_t max_lora_rank) {
  const kernels::MoeSizes moe = gpu_moe_sizes(config);
  const int64_t per_token =
      int64_t{sizeof(Bf16)} * (3 * moe.hidden_size + 2 * config.q_size() + 2 * config.kv_size() +
                               3 * config.intermediate_size) +
      int64_t{4} * (config.num_experts + config.top_k);
  const int64_t per_row = int64_t{sizeof(Bf16)} * moe.hidden_size + int64_t{4} * config.vocab_size;
  size_t attention = 0, linear = 0;
  kernels::attention_workspace(limits.max_sequences, config.num_attention_heads, config.head_dim,
                               nullptr, &attention);
  kernels::linear_workspace(limits.max_tokens, widest_input(config), total_rank(max_lora_rank),
                            nullptr, &linear);
  return elements(limits.max_tokens, per_token) + elements(limits.max_logits, per_row) + attention +
         linear + moe_memory_bytes(moe, limits, std::max(8, max_lora_rank));
}

}  // namespace braid

#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "adapter/adapter_pool.h"
#include "checkpoint/model_config.h"
#include "device/device.h"
#include "gpu/gpu_weights.h"
#include "gpu/step_inputs.h"
#include "kernels/attention/attention_bf16.h"
#include "kv/kv_cache.h"

namespace braid {

// What a step's launches depend on. The rest is in StepInputs and read on the device, so that one
// graph serves all steps of a shape.
struct StepShape {
  int32_t num_tokens = 0;
  int32_t num_decodes = 0;   // leading sequences of one token
  int32_t num_prefills = 0;  // sequences after them
  int32_t num_logits = 0;    // rows; where there are as many as tokens, row i is of token i
  bool with_adapters = false;
  // Some decodes are neighbouring tokens of one reply: one reads keys that the other writes.
  bool has_neighbours = false;

  friend auto operator<=>(const StepShape&, const StepShape&) = default;
};

// The order of operations of a decoder-only model with grouped-query attention (Mixtral,
// Qwen3-MoE) on the device, over buffers that are allocated once. Activations are BF16, the
// residual among them; logits of router and lm_head are float.
class GpuDecoder {
 public:
  // max_lora_rank: of any adapter, 0 where there are none. `weights` must outlive the decoder.
  GpuDecoder(const ModelConfig& config, const GpuWeights& weights, const StepLimits& limits,
             const KvCacheShape& kv_shape, int32_t max_lora_rank);

  // Puts a step on the stream: writes keys and values, and logits() of the wanted rows. Allocates
  // nothing and waits for nothing: safe under graph capture. `adapters` may be null.
  void enqueue(const StepShape& shape, const StepInputs& inputs, const AdapterTables* adapters,
               CudaStream stream);

  // [num_logits, vocab_size], rows logits_stride() apart.
  const float* logits() const { return logits_.as<float>(); }
  int64_t logits_stride() const { return weights_.lm_head.shape.out(); }

  const DeviceBuffer& kv_cache() const { return kv_; }

  // An intermediate of the step that is being enqueued, once what computes it is on the stream: its
  // layer (-1: outside), its name, and the buffer whose leading rows are the step's tokens. BF16
  // but for "router_logits", which are float. Of a layer, in this order: "attention_in", "qkv"
  // (before rotation), "attended", "attention_out", "mlp_in", then "router_logits", "moe_out" or
  // "gate_up", "activated", "mlp_out"; outside "embedding" and "final_norm".
  using Tap = std::function<void(int32_t layer, std::string_view what, const DeviceBuffer& rows)>;
  void set_tap(Tap tap) { tap_ = std::move(tap); }

  // Called whenever all launches of an operation are on the stream: "embedding", "norm"; of a layer
  // "qkv", "rope, KV write", "attention", "o", "norm", then "router" and "mixture", in which the
  // norm after it is, or "gate_up", "silu", "down" and "norm"; "lm_head". Names are literals.
  using Mark = std::function<void(std::string_view operation)>;
  void set_mark(Mark mark) { mark_ = std::move(mark); }

  // Device memory of buffers and workspaces for these limits, without weights and KV cache.
  static size_t buffer_bytes(const ModelConfig& config, const StepLimits& limits,
                             int32_t max_lora_rank);

 private:
  struct Launch {
    const StepShape& shape;
    const StepInputs& inputs;
    const AdapterTables* adapters;
    CudaStream stream;

    const LayerAdapterTables* adapters_of(int32_t layer) const {
      return adapters == nullptr ? nullptr : &adapters->layers[static_cast<size_t>(layer)];
    }
  };
  struct Linear {
    int32_t num_rows = 0;
    const GpuLinear& layer;
    const kernels::LinearAdapterSlot* adapters = nullptr;
    kernels::AdapterOrder order;  // of the rows
    const Bf16* x = nullptr;
    int64_t x_stride = 0;
    Bf16* y = nullptr;
    float* y_float = nullptr;
    int64_t y_stride = 0;
  };

  // The weight of the norm behind a layer, -1 for the embedding: the next layer's, or the last one.
  const DeviceBuffer& norm_after(int32_t layer) const;
  void norm(const Launch& step, const DeviceBuffer& weight, bool add_delta);
  void linear(const Linear& l, CudaStream stream);
  void attention(const Launch& step, int32_t layer);
  void mixture(const Launch& step, int32_t layer);  // and the norm behind it
  void dense_mlp(const Launch& step, int32_t layer);
  kernels::PagedKv paged_kv(int32_t layer) const;
  void tap(int32_t layer, std::string_view what, const DeviceBuffer& rows) const {
    if (tap_) tap_(layer, what, rows);
  }
  void mark(std::string_view operation) const {
    if (mark_) mark_(operation);
  }

  const ModelConfig config_;
  const GpuWeights& weights_;
  const StepLimits limits_;
  const KvCacheShape kv_shape_;
  const int32_t num_sms_;
  const int32_t max_lora_rank_;
  DeviceBuffer inv_freq_;  // [head_dim / 2] float
  DeviceBuffer kv_;        // [num_layers, 2, num_blocks, kv_heads, block, head_dim]
  DeviceBuffer residual_, normed_, delta_;  // [T, H]
  DeviceBuffer qkv_, attended_;             // [T, (heads + 2 kv_heads) * D], [T, heads * D]
  DeviceBuffer gate_up_, activated_;        // of dense layers
  DeviceBuffer router_logits_, topk_ids_;
  DeviceBuffer wanted_, logits_;  // [L, H] and [L, vocab]: rows whose logits are wanted
  DeviceBuffer attention_memory_, linear_memory_, moe_memory_;
  kernels::AttentionWorkspace attention_workspace_;
  kernels::LinearWorkspace linear_workspace_;
  ForkJoin side_;
  Tap tap_;
  Mark mark_;
};

}  // namespace braid

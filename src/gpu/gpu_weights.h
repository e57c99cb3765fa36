#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/model_config.h"
#include "checkpoint/weight_source.h"
#include "cpu/thread_pool.h"
#include "device/device.h"
#include "kernels/linear/linear_bf16.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "model/step_bytes.h"

namespace braid {

// Sizes of the model on the device, and the format of its experts, which config.json tells.
// hidden_size and moe_intermediate_size are multiples of 128: a model of other sizes is padded with
// zeros, which add nothing to any sum.
kernels::MoeSizes gpu_moe_sizes(const ModelConfig& config);

struct GpuLinear {
  kernels::LinearShape shape;
  DeviceBuffer weights;  // packed
};

// Weights of one layer as the kernels read them; H is the padded hidden size.
struct GpuLayer {
  DeviceBuffer input_norm, post_attention_norm;  // [H] BF16
  DeviceBuffer q_norm, k_norm;                   // [head_dim] BF16, or empty
  GpuLinear qkv_proj, o_proj;
  GpuLinear router;                   // of a mixture
  DeviceBuffer gate_up, down;         // of all experts, packed; empty in a dense layer
  GpuLinear gate_up_proj, down_proj;  // of a dense layer
};

struct GpuWeights {
  kernels::MoeSizes moe;
  DeviceBuffer embedding;  // [vocab, H] BF16
  DeviceBuffer final_norm;
  GpuLinear lm_head;
  std::vector<GpuLayer> layers;
  WeightBytes bytes;
};

// Empty when the device's kernels can run a model of this config, otherwise one sentence naming the
// field, its value and what would be accepted.
std::string why_not_on_gpu(const ModelConfig& config);

// Device memory that the weights will take, where matrices that releases quantise are quantised.
size_t gpu_weight_bytes(const ModelConfig& config);

struct GpuLoadOptions {
  cpu::ThreadPool* pool = nullptr;  // packs
  // Experts are not read from the source but filled with random numbers on the device: a source of
  // random weights would take minutes for what the device makes in a second.
  std::optional<uint64_t> random_experts;
};

// Reads every weight of weight_table(config), packs it and brings it to the device, one matrix at a
// time. `progress` is called with matrices done and in total.
//
// Experts are FP8 128x128, BF16 or NVFP4, all of them what config.json says; other matrices are FP8
// 128x128 or BF16. F32 (and F16, which is read as F32) is rounded to BF16, and so are NVFP4
// matrices that are not of experts, decoded: the product with their float scale has more bits.
//
// Errors  those of WeightSource  kUnsupported (another format, by name)
Result<GpuWeights> load_gpu_weights(
    const ModelConfig& config, WeightSource& source, const GpuLoadOptions& options,
    const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace braid

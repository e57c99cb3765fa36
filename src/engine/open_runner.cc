#include "engine/open_runner.h"

#include <algorithm>
#include <fstream>
#include <new>

#include "adapter/adapter_image.h"
#include "base/check.h"
#include "base/cuda_error.h"
#include "checkpoint/weight_source.h"
#include "device/device.h"
#include "engine/scheduler.h"
#include "gpu/gpu_runner.h"
#include "model/cpu_runner.h"
#include "model/model.h"

namespace braid {
namespace {

// "AMD EPYC 9654 96-Core Processor".
std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

WeightFormat weight_format(DummyWeights weights) {
  switch (weights) {
    case DummyWeights::kBf16:
      return WeightFormat::kBf16;
    case DummyWeights::kFp8:
      return WeightFormat::kFp8Block128;
    case DummyWeights::kNvfp4:
      return WeightFormat::kNvfp4;
  }
  BRAID_UNREACHABLE(static_cast<int>(weights));
}

Result<std::unique_ptr<WeightSource>> open_weights(const EngineConfig& config,
                                                   const ModelConfig& model) {
  if (config.load_format == LoadFormat::kDummy)
    return make_dummy_weights(model, weight_format(config.dummy_weights), config.dummy_seed);
  return open_checkpoint(config.model_dir, model);
}

Model::Progress load_progress(const EngineConfig& config) {
  if (!config.on_progress) return {};
  return [&](int64_t done, int64_t total) { config.on_progress("load model", done, total); };
}

Result<OpenedRunner> open_cpu_runner(const EngineConfig& config, const ModelConfig& model,
                                     cpu::ThreadPool& pool) {
  constexpr size_t kDefaultCacheBytes = size_t{1} << 30;
  const size_t cache_bytes = config.kv_cache_bytes > 0 ? config.kv_cache_bytes : kDefaultCacheBytes;
  // Before the weights: loading may take minutes.
  auto plan = plan_cache(config, model, {.bytes = cache_bytes, .element_bytes = sizeof(float)});
  if (!plan) return pass_on(plan);
  auto source = open_weights(config, model);
  if (!source) return pass_on(source);
  auto loaded = Model::load(model, **source, load_progress(config));
  if (!loaded) return pass_on(loaded);
  const bool rounds = config.activation_dtype == ActivationDtype::kBfloat16;
  const ops::Context context = {.backend = ops::Backend::kCpu,
                                .pool = &pool,
                                .rounding = rounds ? Rounding::kBf16 : Rounding::kNone};
  try {
    return OpenedRunner{
        .runner = std::make_unique<CpuRunner>(std::move(*loaded), context, plan->shape),
        .cache = *plan,
        .device = fmt::format("{}, {} threads{}", cpu_name(), pool.num_threads(),
                              rounds ? ", bfloat16" : "")};
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResourceExhausted,
                "no memory for a KV cache of {} bytes; lower kv_cache_bytes",
                plan->shape.bytes_per_block() * plan->shape.num_blocks);
  }
}

#ifdef BRAID_HAS_CUDA

// What the kernels take: the largest mixture that is tested, and what routing sorts in shared
// memory.
constexpr int32_t kMaxGpuBatchTokens = 8192, kMaxGpuAdapters = 512;
constexpr int32_t kMaxGpuBatchSize =
    kernels::kMaxAttentionSequences - Scheduler::kMaxRecomputedTokens;

double gigabytes(size_t bytes) { return static_cast<double>(bytes) * 1e-9; }

// The model as a GPU loads it: the format of dummy weights is what was asked for.
ModelConfig model_on_gpu(const EngineConfig& config, ModelConfig model) {
  if (config.load_format != LoadFormat::kDummy) return model;
  switch (config.dummy_weights) {
    case DummyWeights::kBf16:
      model.quant_method = QuantMethod::kNone;
      break;
    case DummyWeights::kFp8:
      model.quant_method = QuantMethod::kFp8Block128;
      break;
    case DummyWeights::kNvfp4:
      model.quant_method = QuantMethod::kModelOptNvfp4;
      break;
  }
  return model;
}

Result<OpenedRunner> open_gpu_runner(const EngineConfig& config, const ModelConfig& model,
                                     cpu::ThreadPool& pool) {
  const DeviceFacts before = device_facts();
  const auto allowed = static_cast<size_t>(static_cast<double>(before.memory_bytes) *
                                           static_cast<double>(config.gpu_memory_fraction));
  const size_t budget = std::min(allowed, before.free_bytes);
  const size_t adapter_bytes =
      config.adapter_device_bytes > 0 ? config.adapter_device_bytes : before.memory_bytes / 10;
  GpuRunnerOptions options = {
      .limits = {.max_tokens = config.max_batch_tokens,
                 .max_sequences = std::min(config.max_batch_size + Scheduler::kMaxRecomputedTokens,
                                           config.max_batch_tokens),
                 .max_logits = config.max_batch_size + Scheduler::kMaxPromptRows,
                 .num_adapter_slots = config.max_adapters},
      .max_lora_rank = config.max_lora_rank,
      .adapter_bytes = adapter_bytes};
  constexpr size_t kGraphs = size_t{1} << 30;  // and what the driver takes for itself
  const size_t fixed = gpu_weight_bytes(model) + adapter_bytes + kGraphs +
                       GpuDecoder::buffer_bytes(model, options.limits, config.max_lora_rank);
  if (fixed >= budget) {
    return fail(ErrorCode::kResourceExhausted,
                "weights, buffers and adapters take {:.1f} GB, of the GPU's memory {:.1f} GB may "
                "be used ({:.1f} GB free, gpu_memory_fraction {}): {:.1f} GB are missing; lower "
                "adapter_device_bytes, max_batch_tokens or max_lora_rank, or take a smaller model",
                gigabytes(fixed), gigabytes(budget), gigabytes(before.free_bytes),
                config.gpu_memory_fraction, gigabytes(fixed - budget));
  }
  const size_t left = budget - fixed;
  if (config.kv_cache_bytes > left) {
    return fail(ErrorCode::kResourceExhausted,
                "kv_cache_bytes is {}, beside weights, buffers and adapters the GPU has {} left",
                config.kv_cache_bytes, left);
  }
  const size_t cache_bytes = config.kv_cache_bytes > 0 ? config.kv_cache_bytes : left;
  auto plan = plan_cache(config, model, {.bytes = cache_bytes, .element_bytes = sizeof(Bf16)});
  if (!plan) return pass_on(plan);
  options.kv_shape = plan->shape;
  options.limits.max_kv_blocks =
      (plan->max_context + config.kv_block_size - 1) / config.kv_block_size;

  auto source = open_weights(config, model);
  if (!source) return pass_on(source);
  GpuLoadOptions load = {.pool = &pool};
  if (config.load_format == LoadFormat::kDummy) load.random_experts = config.dummy_seed;
  try {
    auto weights = load_gpu_weights(model, **source, load, load_progress(config));
    if (!weights) return pass_on(weights);
    return OpenedRunner{.runner = std::make_unique<GpuRunner>(model, std::move(*weights), options),
                        .cache = *plan,
                        .device = before.name};
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kResourceExhausted, "no host memory for what the GPU copies from");
  } catch (const CudaError& error) {
    return fail(ErrorCode::kResourceExhausted,
                "the GPU refused: {}; lower gpu_memory_fraction or kv_cache_bytes", error.what());
  }
}

// Empty when the GPU can run the model, otherwise one sentence.
std::string why_not_cuda(const EngineConfig& config, const ModelConfig& model) {
  if (num_devices() == 0) return "no Hopper GPU (compute capability 9.0) was found";
  if (config.activation_dtype == ActivationDtype::kFloat32)
    return "activation_dtype is float32, on a GPU it is bfloat16";
  if (auto why = why_not_on_gpu(model); !why.empty()) return why;
  if (config.kv_block_size < 16 || (config.kv_block_size & (config.kv_block_size - 1)) != 0)
    return fmt::format("kv_block_size is {}, on a GPU it is a power of two from 16 on",
                       config.kv_block_size);
  if (config.max_batch_size > kMaxGpuBatchSize)
    return fmt::format("max_batch_size is {}, on a GPU it is at most {}", config.max_batch_size,
                       kMaxGpuBatchSize);
  if (config.max_batch_tokens > kMaxGpuBatchTokens)
    return fmt::format("max_batch_tokens is {}, on a GPU it is at most {}", config.max_batch_tokens,
                       kMaxGpuBatchTokens);
  if (config.max_adapters > kMaxGpuAdapters)
    return fmt::format("max_adapters is {}, on a GPU it is at most {}", config.max_adapters,
                       kMaxGpuAdapters);
  if (config.max_lora_rank > AdapterImage::kMaxRank)
    return fmt::format("max_lora_rank is {}, on a GPU it is at most {}", config.max_lora_rank,
                       AdapterImage::kMaxRank);
  return "";
}

#endif

}  // namespace

Result<OpenedRunner> open_runner(const EngineConfig& config, const ModelConfig& model,
                                 cpu::ThreadPool& pool) {
  if (config.device == Device::kCpu) return open_cpu_runner(config, model, pool);
#ifdef BRAID_HAS_CUDA
  const ModelConfig on_gpu = model_on_gpu(config, model);
  const std::string why = why_not_cuda(config, on_gpu);
  if (why.empty()) return open_gpu_runner(config, on_gpu, pool);
#else
  const std::string why = "this build has no CUDA";
#endif
  if (config.device == Device::kCuda) return fail(ErrorCode::kUnsupported, "device cuda: {}", why);
  auto opened = open_cpu_runner(config, model, pool);
#ifdef BRAID_HAS_CUDA
  // Whoever has a GPU wants to know why it is idle.
  if (opened && num_devices() > 0) opened->device += fmt::format("; not on the GPU: {}", why);
#endif
  return opened;
}

}  // namespace braid

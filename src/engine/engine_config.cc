#include "engine/engine_config.h"

#include <sched.h>

#include <algorithm>
#include <limits>

namespace braid {

Status check(const EngineConfig& config) {
  struct Limit {
    const char* option;
    int32_t value;
    int32_t low;
    int32_t high;
  };
  const Limit limits[] = {
      {"num_threads", config.num_threads, 0, 1024},
      {"max_batch_size", config.max_batch_size, 1, 4096},
      {"max_batch_tokens", config.max_batch_tokens, 1, 1 << 20},
      {"max_queued_requests", config.max_queued_requests, 1, 1 << 20},
      {"max_context", config.max_context, 0, 1 << 30},
      {"kv_block_size", config.kv_block_size, 1, 1024},
      {"max_adapters", config.max_adapters, 1, 4096},
      {"max_lora_rank", config.max_lora_rank, 1, 4096},
      {"max_running_per_adapter", config.max_running_per_adapter, 0, 4096},
  };
  for (const auto& [option, value, low, high] : limits) {
    if (value < low || value > high) {
      return fail(ErrorCode::kInvalidArgument, "{} is {}, accepted is {} to {}", option, value, low,
                  high);
    }
  }
  if (!(config.gpu_memory_fraction > 0 && config.gpu_memory_fraction <= 1)) {
    return fail(ErrorCode::kInvalidArgument, "gpu_memory_fraction is {}, accepted is above 0 to 1",
                config.gpu_memory_fraction);
  }
  if (config.device == Device::kCuda && config.activation_dtype == ActivationDtype::kFloat32) {
    return fail(ErrorCode::kInvalidArgument,
                "activation_dtype is float32, on a GPU it is bfloat16; device cpu has both");
  }
  if (config.model_dir.empty())
    return fail(ErrorCode::kInvalidArgument, "model_dir is empty, it must name a model's folder");
  return {};
}

Result<CachePlan> plan_cache(const EngineConfig& config, const ModelConfig& model,
                             const CacheMemory& memory) {
  CachePlan plan;
  plan.shape = {.num_layers = model.num_hidden_layers,
                .num_blocks = 0,
                .block_size = config.kv_block_size,
                .num_kv_heads = model.num_key_value_heads,
                .head_dim = model.head_dim,
                .element_bytes = memory.element_bytes};
  const size_t block_bytes = plan.shape.bytes_per_block();
  const auto wanted = static_cast<int64_t>(memory.bytes / block_bytes);
  if (wanted < 1) {
    return fail(ErrorCode::kResourceExhausted,
                "kv_cache_bytes is {}, one block of {} tokens takes {}", memory.bytes,
                config.kv_block_size, block_bytes);
  }
  if (config.max_context > model.max_position_embeddings) {
    return fail(ErrorCode::kInvalidArgument, "max_context is {}, the model's limit is {}",
                config.max_context, model.max_position_embeddings);
  }
  const int32_t context =
      config.max_context > 0 ? config.max_context : model.max_position_embeddings;
  // More than every request at full length has no use but for prefixes: twice that is plenty.
  const int64_t block_size = config.kv_block_size;
  const int64_t useful =
      2 * int64_t{config.max_batch_size} * ((context + block_size - 1) / block_size);
  const int64_t addressable = std::numeric_limits<int32_t>::max() / block_size;
  plan.shape.num_blocks = static_cast<int32_t>(std::min({wanted, useful, addressable}));
  const int64_t cache_tokens = plan.shape.num_blocks * block_size;
  if (config.max_context > cache_tokens) {
    return fail(
        ErrorCode::kInvalidArgument,
        "max_context is {}, kv_cache_bytes of {} hold {} tokens; {} bytes would do",
        config.max_context, memory.bytes, cache_tokens,
        static_cast<size_t>((config.max_context + block_size - 1) / block_size) * block_bytes);
  }
  plan.max_context = static_cast<int32_t>(std::min<int64_t>(context, cache_tokens));
  return plan;
}

int32_t thread_count(const EngineConfig& config) {
  if (config.num_threads > 0) return config.num_threads;
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

}  // namespace braid

#pragma once

#include <cstdint>

#include "base/result.h"
#include "braid/engine.h"
#include "checkpoint/model_config.h"
#include "kv/kv_cache.h"

namespace braid {

// Every number of the config is in its range, before anything is read.
//
// Errors  kInvalidArgument naming the option, its value and what would be accepted
Status check(const EngineConfig& config);

// How many tokens fit: the shape of the KV cache and the longest prompt and reply.
struct CachePlan {
  KvCacheShape shape;
  int32_t max_context = 0;
};

struct CacheMemory {
  size_t bytes = 0;
  size_t element_bytes = sizeof(float);
};

// Errors  kResourceExhausted  the memory does not hold one block
//         kInvalidArgument    max_context is more than the model or the cache can hold
Result<CachePlan> plan_cache(const EngineConfig& config, const ModelConfig& model,
                             const CacheMemory& memory);

// num_threads, or for 0 the number of cores this process may run on.
int32_t thread_count(const EngineConfig& config);

}  // namespace braid

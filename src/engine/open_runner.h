#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "braid/engine.h"
#include "checkpoint/model_config.h"
#include "cpu/thread_pool.h"
#include "engine/engine_config.h"
#include "model/runner.h"

namespace braid {

struct OpenedRunner {
  std::unique_ptr<Runner> runner;
  CachePlan cache;
  std::string device;  // for people
};

// Loads the model that the config names onto the device that it asks for, and plans the KV cache
// there. `pool` is used by the runner and must outlive it.
//
// Errors  those of Engine::open
Result<OpenedRunner> open_runner(const EngineConfig& config, const ModelConfig& model,
                                 cpu::ThreadPool& pool);

}  // namespace braid

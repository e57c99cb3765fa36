#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "braid/engine.h"
#include "checkpoint/model_config.h"

namespace braid::test {

struct SoakOptions {
  Device device = Device::kCpu;
  ActivationDtype activation_dtype = ActivationDtype::kAuto;
  Architecture architecture = Architecture::kQwen3Moe;
  int64_t num_steps = 0;  // at least; more until everything in SoakReport has happened
  int32_t num_cases = 0;  // different requests
  uint64_t seed = 0;
};

struct SoakReport {
  EngineStats stats;  // when all had ended
  int64_t num_requests = 0;
  int64_t num_cancelled = 0;
  int64_t num_refused = 0;          // its adapter was removed just then
  int64_t num_adapter_changes = 0;  // replaced, removed and added again, pinned
  std::vector<std::string> faults;  // what should not have been: one sentence each
  std::string to_string() const;
};

// An engine with a tiny random model under mixed load, through its public interface. Four threads
// submit requests over the base and seven adapters, and cancel some; another one replaces, removes,
// adds and pins the adapters. The engine is short of everything: KV blocks, so that it preempts;
// slots, host memory and GPU memory for adapters, so that they come and go; tokens of a step, so
// that prompts are cut. Prompts share beginnings.
//
// What must hold, whatever the load: an answer is, in every bit of its log probabilities, the one
// that the request gives alone, with a content that its adapter had while it was submitted, or a
// beginning of it where it was cancelled; each request has one last event; when all have ended,
// nothing is held.
SoakReport soak(const SoakOptions& options);

}  // namespace braid::test

#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/bench_arms.h"
#include "apps/in_flight.h"
#include "base/result.h"
#include "braid/engine.h"

namespace braid::apps {

// Streams that decode, first by themselves, then while prompts arrive whether or not the ones
// before them are done.
struct MixedLoad {
  int32_t context = 0;        // tokens of each stream before its reply
  int32_t prompt_tokens = 0;  // of each prompt
  double interval = 0;        // seconds from one prompt to the next
  double quiet = 0;           // seconds without prompts
  double loaded = 0;          // seconds with them; the first comes at once
};

// At least one.
int32_t num_prompts(const MixedLoad& load);

// Prompts that may run together: those that share a step, and the one that is over its end.
int32_t prompts_at_a_time(const MixedLoad& load, int32_t max_batch_tokens);

struct MixedSamples {
  // Between neighbouring tokens of a stream, of all streams: 0 for those that came together. Quiet
  // ones lie within the quiet time, loaded ones begin within the loaded time.
  std::vector<double> quiet_ms;
  std::vector<double> loaded_ms;
  double quiet_tokens_per_s = 0;  // of all streams
  double loaded_tokens_per_s = 0;
  double prompt_tokens_per_s = 0;      // computed in the loaded time
  std::vector<double> first_token_ms;  // of prompts that had theirs in the loaded time, as sent
  int32_t num_sent = 0;
};

// Runs the load on the arm's streams and measures; prompts take turns with the arm's adapters.
// Whatever still runs at the end is cancelled. `config` is the engine's.
//
// Errors  kInvalidArgument    a stream reached the context before the end; a request failed; a
//                             phase too short for two tokens of a stream
//         kResourceExhausted  prompts had to wait for room in the KV cache
Result<MixedSamples> run_mixed(Engine& engine, const EngineConfig& config, const MixedLoad& load,
                               const BenchArm& arm, uint64_t seed);

// The same streams until all decode, and one prompt: every size of step comes up once.
Status warm_up_mixed(Engine& engine, const EngineConfig& config, const MixedLoad& load,
                     const BenchArm& arm, uint64_t seed);

using TokenTime = std::chrono::steady_clock::time_point;

// Milliseconds from each of these times in [begin, end) to the one after it, where there is one.
// `times` must not fall.
std::vector<double> gaps_ms(std::span<const TokenTime> times, TokenTime begin, TokenTime end);

// Whether prompts wait longer and longer: not all that were sent have their first token, and the
// later half of those that do waited over a tenth longer than the earlier half.
bool queue_grows(std::span<const double> first_token_ms, int32_t num_sent);

}  // namespace braid::apps

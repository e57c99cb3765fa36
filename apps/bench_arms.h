#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/bench_plan.h"
#include "apps/engine_options.h"
#include "base/json_fwd.h"
#include "base/result.h"
#include "braid/engine.h"

namespace braid::apps {

// What benchmarks of an engine share: arms that differ in their adapters and take turns in one run.

struct BenchOptions {
  EngineOptions engine;
  std::vector<int32_t> batch;
  std::string batch_option = "--batch";  // what sets it
  std::vector<int32_t> adapters = {0, 1, 8};
  int32_t rank = 16;
  int32_t rounds = 5;
  std::string json;
};

// Adds --batch or what it is called here, --adapters, --rank, --rounds and --json, and the engine's
// options before them. `options` must outlive the parse.
void add_bench_options(CLI::App& command, BenchOptions& options, const std::string& batch_help);
inline constexpr const char* kBenchGroup = "Measurement";

// Requests that run together. Without adapters it is the base the others are compared with.
struct BenchArm {
  int32_t batch = 0;
  int32_t num_adapters = 0;
  int32_t min_rank = 0;  // of all its adapters; 0: there are none
  int32_t max_rank = 0;
  std::vector<AdapterId> adapter_of_request;  // [batch]
};

struct OpenedBench {
  std::unique_ptr<Engine> engine;
  std::vector<BenchArm> arms;  // by batch; the base first
};

// Opens the engine with places for the arms that --batch and --adapters make, and registers their
// adapters: those of --lora, then random ones. Says what is left out, and leave()s where it fails.
OpenedBench open_bench(const BenchOptions& options);

// Random tokens, others for each seed and request, so that no request profits from another's cached
// prefix.
std::vector<int32_t> bench_prompt(const Engine& engine, int32_t num_tokens, uint64_t seed,
                                  int32_t request);

// Runs every arm once in round -1, which warms up, and then in each of the rounds, with progress
// under that name; leave()s where one fails.
void take_turns(std::string_view what, size_t num_arms, int32_t rounds,
                const std::function<Status(size_t arm, int32_t round)>& run);

// "16", "8-40", or "-" for the base model.
std::string shown_rank(const BenchArm& arm);

// {"batch": ..., "adapters": ..., "min_rank": ..., "max_rank": ...}.
Json to_json(const BenchArm& arm);

// 0 of none.
double median(std::vector<double> values);
double percentile(std::vector<double> values, double share);

// How many times the rate of the base an arm had, of their times in each round: the median over
// rounds is blind to slow drift.
double ratio_of_rounds(const std::vector<double>& base, const std::vector<double>& arm);

}  // namespace braid::apps

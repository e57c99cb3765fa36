#include "apps/bench_arms.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <future>
#include <iterator>
#include <utility>
#include <vector>

#include "apps/commands.h"
#include "apps/progress.h"
#include "base/json.h"

namespace braid::apps {
namespace {

// An adapter to measure with, and the ranks of its factors.
struct BenchAdapter {
  AdapterId id = AdapterId::kBase;
  int32_t min_rank = 0;
  int32_t max_rank = 0;
};

// The adapters of --lora, then random ones up to `count`.
Result<std::vector<BenchAdapter>> gather_adapters(Engine& engine, const BenchOptions& options,
                                                  int32_t count) {
  auto loras = parse_loras(options.engine.lora);
  if (!loras) return pass_on(loras, "--lora");
  std::vector<BenchAdapter> adapters;
  for (const NamedAdapter& lora : *loras) {
    const AdapterId id = *engine.find_adapter(lora.name);
    auto report = engine.adapter_report(id);
    if (!report) return pass_on(report);
    adapters.push_back({id, report->min_rank, report->max_rank});
  }
  // Gigabytes each for a large model, and twice as many until it is packed: some side by side.
  constexpr int32_t kAtOnce = 8;
  std::deque<std::future<Result<AdapterId>>> random;
  auto next = static_cast<int32_t>(adapters.size());
  while (next < count || !random.empty()) {
    while (next < count && std::ssize(random) < kAtOnce) {
      random.push_back(std::async(std::launch::async, [&engine, &options, i = next++] {
        return engine.add_dummy_adapter(fmt::format("random {}", i), options.rank,
                                        static_cast<uint64_t>(i));
      }));
    }
    auto id = random.front().get();
    random.pop_front();
    if (!id) return pass_on(id);
    adapters.push_back({*id, options.rank, options.rank});
  }
  return adapters;
}

BenchArm make_arm(const ArmShape& shape, const std::vector<BenchAdapter>& adapters) {
  BenchArm arm = {.batch = shape.batch, .num_adapters = shape.num_adapters};
  for (int32_t i = 0; i < shape.batch; ++i) {
    if (shape.num_adapters == 0) {
      arm.adapter_of_request.push_back(AdapterId::kBase);
      continue;
    }
    const BenchAdapter& adapter = adapters[static_cast<size_t>(i % shape.num_adapters)];
    arm.adapter_of_request.push_back(adapter.id);
    arm.min_rank = i == 0 ? adapter.min_rank : std::min(arm.min_rank, adapter.min_rank);
    arm.max_rank = std::max(arm.max_rank, adapter.max_rank);
  }
  return arm;
}

}  // namespace

void add_bench_options(CLI::App& command, BenchOptions& options, const std::string& batch_help) {
  add_engine_options(command, options.engine);
  command.add_option(options.batch_option, options.batch, batch_help)
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group(kBenchGroup);
  command
      .add_option("--adapters", options.adapters,
                  "Different adapters in a batch, at most its size: those of --lora first, then "
                  "random ones; the base model is always measured too")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group(kBenchGroup);
  command.add_option("--rank", options.rank, "Rank of the random adapters; --lora has its own")
      ->capture_default_str()
      ->group(kBenchGroup);
  command.add_option("--rounds", options.rounds, "Rounds; the arms take turns")
      ->capture_default_str()
      ->group(kBenchGroup);
  command.add_option("--json", options.json, "Write every sample to this file")
      ->type_name("FILE")
      ->group(kBenchGroup);
}

OpenedBench open_bench(const BenchOptions& options) {
  if (options.rounds < 1)
    leave(fmt::format("--rounds {}: takes 1 or more", options.rounds), kUsage);
  auto plan = plan_arms(options.batch, options.adapters,
                        static_cast<int32_t>(options.engine.lora.size()), options.batch_option);
  if (!plan) leave(plan.error().message, kUsage);
  for (const std::string& note : plan->notes) complain(note);
  EngineOptions engine_options = options.engine;
  EngineConfig& config = engine_options.config;
  config.max_batch_size = std::max(config.max_batch_size, plan->max_batch);
  config.max_queued_requests = std::max(config.max_queued_requests, plan->max_batch);
  config.max_adapters = std::max(config.max_adapters, plan->max_adapters);

  auto engine = open_engine(engine_options);
  if (!engine) leave(engine.error().message);
  auto adapters = gather_adapters(**engine, options, plan->max_adapters);
  if (!adapters) leave(adapters.error().message);
  OpenedBench opened = {.engine = std::move(*engine), .arms = {}};
  for (const ArmShape& shape : plan->arms) opened.arms.push_back(make_arm(shape, *adapters));
  return opened;
}

std::vector<int32_t> bench_prompt(const Engine& engine, int32_t num_tokens, uint64_t seed,
                                  int32_t request) {
  std::vector<int32_t> prompt;
  uint64_t state = seed * 1'000'003 + static_cast<uint64_t>(request) + 1;
  for (int32_t t = 0; t < num_tokens; ++t) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    prompt.push_back(
        static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(engine.vocab_size())));
  }
  return prompt;
}

void take_turns(std::string_view what, size_t num_arms, int32_t rounds,
                const std::function<Status(size_t arm, int32_t round)>& run) {
  Progress progress;  // takes leave() for failure
  const auto total = static_cast<int64_t>(num_arms) * (rounds + 1);
  int64_t done = 0;
  for (int32_t round = -1; round < rounds; ++round) {
    for (size_t arm = 0; arm < num_arms; ++arm) {
      progress.update(what, done++, total);
      auto ran = run(arm, round);
      if (!ran) leave(ran.error().message);
    }
  }
  progress.finish(true);
}

std::string shown_rank(const BenchArm& arm) {
  if (arm.num_adapters == 0) return "-";
  if (arm.min_rank == arm.max_rank) return fmt::format("{}", arm.max_rank);
  return fmt::format("{}-{}", arm.min_rank, arm.max_rank);
}

Json to_json(const BenchArm& arm) {
  return {{"batch", arm.batch},
          {"adapters", arm.num_adapters},
          {"min_rank", arm.num_adapters > 0 ? Json(arm.min_rank) : Json()},
          {"max_rank", arm.num_adapters > 0 ? Json(arm.max_rank) : Json()}};
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at = static_cast<ptrdiff_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

double ratio_of_rounds(const std::vector<double>& base, const std::vector<double>& arm) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(base.size(), arm.size()); ++i) ratios.push_back(base[i] / arm[i]);
  return median(ratios);
}

}  // namespace braid::apps

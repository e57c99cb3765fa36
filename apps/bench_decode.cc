// braid bench decode: decode steps with and without adapters, arms interleaved in one run.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "apps/bench_json.h"
#include "apps/bench_plan.h"
#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/in_flight.h"
#include "apps/progress.h"
#include "apps/table.h"
#include "apps/terminal.h"
#include "base/json.h"
#include "base/result.h"

namespace braid::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchOptions {
  EngineOptions engine;
  std::vector<int32_t> batch = {1, 8};
  std::vector<int32_t> adapters = {0, 1, 8};
  int32_t rank = 16;
  int32_t context = 64;
  int32_t steps = 48;
  int32_t rounds = 5;
  std::string json;
};

// An adapter to measure with, and the ranks of its factors.
struct BenchAdapter {
  AdapterId id = AdapterId::kBase;
  int32_t min_rank = 0;
  int32_t max_rank = 0;
};

// One measured combination. Arm 0 adapters is the base the others are compared with.
struct Arm {
  int32_t batch = 0;
  int32_t num_adapters = 0;
  int32_t min_rank = 0;  // of all its adapters; 0: there are none
  int32_t max_rank = 0;
  std::vector<AdapterId> adapter_of_request;  // [batch]
  int32_t spare_tokens = 0;                   // that its requests make beyond the steps measured
  std::vector<double> step_ms;                // every step of every round
  std::vector<double> round_ms;               // median step of each round
  double seconds = 0;                         // of all rounds, prefills included
  double device_seconds = 0;                  // of these, that a GPU worked
};

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

// Runs `batch` requests together and gives the length of each step in which all of them decoded.
// None, where a tiny model had done with the first before the last was there.
Result<std::vector<double>> whole_steps(Engine& engine, const BenchOptions& options, const Arm& arm,
                                        uint64_t seed) {
  std::string error;  // written by callbacks, read when none can come any more
  // Per request, when each of its tokens came: tokens of one step come at one time, give or take
  // the callbacks of that step.
  std::vector<std::vector<Clock::time_point>> times(static_cast<size_t>(arm.batch));
  InFlight in_flight(engine);  // after what its callbacks write

  for (int32_t i = 0; i < arm.batch; ++i) {
    Request request;
    request.adapter = arm.adapter_of_request[static_cast<size_t>(i)];
    // Distinct prompts, so that no request profits from another's cached prefix.
    uint64_t state = seed * 1'000'003 + static_cast<uint64_t>(i) + 1;
    for (int32_t t = 0; t < options.context; ++t) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      request.prompt.push_back(
          static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(engine.vocab_size())));
    }
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    // Enough that all still decode together for `steps` steps however their prefills were spread.
    request.sampling.max_tokens = options.steps + 2 + arm.batch + arm.spare_tokens;
    auto submitted = in_flight.submit(std::move(request), [&, i](const TokenEvent& event) {
      if (!event.tokens.empty()) times[static_cast<size_t>(i)].push_back(Clock::now());
      if (event.reason == FinishReason::kError) error = event.error;
    });
    if (!submitted) return pass_on(submitted);
  }
  in_flight.wait_for_all();
  if (!error.empty()) return fail(ErrorCode::kInvalidArgument, "{}", error);

  // From when the last request has its first token until the first one ends, the batch is whole.
  Clock::time_point begin = times[0].front(), end = times[0].back();
  for (const auto& of_request : times) {
    begin = std::max(begin, of_request.front());
    end = std::min(end, of_request.back());
  }
  std::vector<double> steps;
  const auto& clock = times[0];
  for (size_t k = 1; k < clock.size(); ++k) {
    // The step after the last prefill is left out: it may share work with it.
    if (clock[k - 1] <= begin || clock[k] > end) continue;
    steps.push_back(std::chrono::duration<double, std::milli>(clock[k] - clock[k - 1]).count());
  }
  return steps;
}

// Adds a round's steps to the arm's.
Status run_round(Engine& engine, const BenchOptions& options, Arm& arm, uint64_t seed) {
  constexpr int32_t kMostSpareTokens = 1024;
  for (;;) {
    const auto begin = Clock::now();
    const double device_begin = engine.stats().device_seconds;
    auto steps = whole_steps(engine, options, arm, seed);
    arm.seconds += std::chrono::duration<double>(Clock::now() - begin).count();
    arm.device_seconds += engine.stats().device_seconds - device_begin;
    if (!steps) return pass_on(steps);
    if (!steps->empty()) {
      arm.round_ms.push_back(median(*steps));
      arm.step_ms.insert(arm.step_ms.end(), steps->begin(), steps->end());
      return {};
    }
    if (arm.spare_tokens >= kMostSpareTokens) {
      return fail(ErrorCode::kInvalidArgument,
                  "no step in which all {} requests decoded; raise --steps", arm.batch);
    }
    arm.spare_tokens = std::max(32, 4 * arm.spare_tokens);
  }
}

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
  for (auto i = static_cast<int32_t>(adapters.size()); i < count; ++i) {
    auto id = engine.add_dummy_adapter(fmt::format("random {}", i), options.rank,
                                       static_cast<uint64_t>(i));
    if (!id) return pass_on(id);
    adapters.push_back({*id, options.rank, options.rank});
  }
  return adapters;
}

Arm make_arm(const ArmShape& shape, const std::vector<BenchAdapter>& adapters) {
  Arm arm = {.batch = shape.batch, .num_adapters = shape.num_adapters};
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

// "16", "8-40", or "-" for the base model.
std::string shown_rank(const Arm& arm) {
  if (arm.num_adapters == 0) return "-";
  if (arm.min_rank == arm.max_rank) return fmt::format("{}", arm.max_rank);
  return fmt::format("{}-{}", arm.min_rank, arm.max_rank);
}

struct Row {
  const Arm* arm = nullptr;
  double ms = 0;
  double tokens_per_s = 0;
  double floor_ms = 0;
  double ratio = 1;        // of throughput, over base at the same batch
  double floor_ratio = 1;  // what the bytes allow
};

Row make_row(const Engine& engine, const Arm& arm, const Arm& base, double read_rate,
             int32_t context_len) {
  Row row;
  row.arm = &arm;
  row.ms = median(arm.step_ms);
  row.tokens_per_s = arm.batch * 1000.0 / row.ms;
  row.floor_ms =
      static_cast<double>(engine.decode_step_bytes(arm.adapter_of_request, context_len)) /
      read_rate * 1e3;
  const double base_floor_ms =
      static_cast<double>(engine.decode_step_bytes(base.adapter_of_request, context_len)) /
      read_rate * 1e3;
  row.floor_ratio = base_floor_ms / row.floor_ms;
  // Rounds alternate between the arms: the median of per-round ratios is blind to slow drift.
  std::vector<double> ratios;
  for (size_t i = 0; i < arm.round_ms.size(); ++i)
    ratios.push_back(base.round_ms[i] / arm.round_ms[i]);
  row.ratio = median(ratios);
  return row;
}

Json to_json(const std::vector<Row>& rows, const BenchOptions& options, const std::string& device,
             double read_rate) {
  Json json = {{"bench", "decode"},
               {"model", options.engine.config.model_dir.string()},
               {"device", {{"name", device}, {"read_gb_per_s", read_rate / 1e9}}},
               {"context", options.context},
               {"rounds", options.rounds},
               {"version", BRAID_VERSION},
               {"rows", Json::array()}};
  for (const Row& row : rows) {
    json["rows"].push_back(
        {{"name", fmt::format("batch {}, {} adapters", row.arm->batch, row.arm->num_adapters)},
         {"batch", row.arm->batch},
         {"adapters", row.arm->num_adapters},
         {"min_rank", row.arm->num_adapters > 0 ? Json(row.arm->min_rank) : Json()},
         {"max_rank", row.arm->num_adapters > 0 ? Json(row.arm->max_rank) : Json()},
         {"tokens_per_s", row.tokens_per_s},
         {"ms_per_step", row.ms},
         {"ms_p10", percentile(row.arm->step_ms, 0.1)},
         {"ms_p90", percentile(row.arm->step_ms, 0.9)},
         {"floor_ms", row.floor_ms},
         {"floor_share", row.floor_ms / row.ms},
         {"device_busy", row.arm->device_seconds / row.arm->seconds},
         {"ratio", row.ratio},
         {"floor_ratio", row.floor_ratio},
         {"steps_ms", row.arm->step_ms}});
  }
  return json;
}

void print_rows(const std::vector<Row>& rows, const std::string& device, double read_rate) {
  fmt::print("{}; read rate {:.1f} GB/s\n\n", device, read_rate / 1e9);
  Table table({"batch", "adapters", "rank", "tokens/s", "ms/step", "p10", "p90", "floor ms",
               "of floor", "of base", "bytes allow", "GPU busy"});
  for (const Row& row : rows) {
    table.add(
        {fmt::format("{}", row.arm->batch),
         row.arm->num_adapters == 0 ? "-" : fmt::format("{}", row.arm->num_adapters),
         shown_rank(*row.arm), fmt::format("{:.1f}", row.tokens_per_s),
         fmt::format("{:.2f}", row.ms), fmt::format("{:.2f}", percentile(row.arm->step_ms, 0.1)),
         fmt::format("{:.2f}", percentile(row.arm->step_ms, 0.9)),
         fmt::format("{:.2f}", row.floor_ms), fmt::format("{:.0f} %", 100 * row.floor_ms / row.ms),
         row.arm->num_adapters == 0 ? "-" : fmt::format("{:.1f} %", 100 * row.ratio),
         row.arm->num_adapters == 0 ? "-" : fmt::format("{:.1f} %", 100 * row.floor_ratio),
         row.arm->device_seconds == 0
             ? "-"
             : fmt::format("{:.1f} %", 100 * row.arm->device_seconds / row.arm->seconds)});
  }
  fmt::print(
      "{}\nfloor: bytes a step must read over the measured read rate. of base: throughput against "
      "the\n"
      "base model alone at the same batch, arms alternating in this run. GPU busy: of the whole "
      "run.\n",
      table.to_string());
}

void run_bench_decode(BenchOptions options) {
  if (options.steps < 1 || options.rounds < 1 || options.context < 1)
    leave("--steps, --rounds and --context must be at least 1", kUsage);
  auto plan =
      plan_arms(options.batch, options.adapters, static_cast<int32_t>(options.engine.lora.size()));
  if (!plan) leave(plan.error().message, kUsage);
  for (const std::string& note : plan->notes) complain(note);
  EngineConfig& config = options.engine.config;
  config.max_batch_size = std::max(config.max_batch_size, plan->max_batch);
  config.max_queued_requests = std::max(config.max_queued_requests, plan->max_batch);
  config.max_adapters = std::max(config.max_adapters, plan->max_adapters);

  auto engine = open_engine(options.engine);
  if (!engine) leave(engine.error().message);
  auto adapters = gather_adapters(**engine, options, plan->max_adapters);
  if (!adapters) leave(adapters.error().message);
  std::vector<Arm> arms;
  for (const ArmShape& shape : plan->arms) arms.push_back(make_arm(shape, *adapters));

  const double read_rate = (*engine)->measure_read_rate();
  Progress progress;  // takes leave() for failure
  const int64_t total = static_cast<int64_t>(arms.size()) * (options.rounds + 1);
  int64_t done = 0;
  for (int32_t round = -1; round < options.rounds; ++round) {  // round -1 warms up
    for (Arm& arm : arms) {
      progress.update("bench decode", done++, total);
      auto ran = run_round(**engine, options, arm, static_cast<uint64_t>(round + 2));
      if (!ran) leave(ran.error().message);
      if (round < 0)
        arm.step_ms.clear(), arm.round_ms.clear(), arm.seconds = arm.device_seconds = 0;
    }
  }
  progress.finish(true);

  std::vector<Row> rows;
  const Arm* base = nullptr;
  for (const Arm& arm : arms) {
    if (arm.num_adapters == 0) base = &arm;
    rows.push_back(make_row(**engine, arm, *base, read_rate, options.context + options.steps / 2));
  }
  print_rows(rows, (*engine)->device(), read_rate);
  write_bench_json(options.json, to_json(rows, options, (*engine)->device(), read_rate));
}

}  // namespace

void add_bench(CLI::App& program) {
  CLI::App* bench = program.add_subcommand("bench", "Measure this machine");
  bench->require_subcommand(1);
#ifdef BRAID_HAS_CUDA
  add_bench_layer(*bench);
  add_bench_attention(*bench);
  add_bench_swap(*bench);
  add_bench_linear(*bench);
  add_bench_sampling(*bench);
#endif
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = bench->add_subcommand(
      "decode", "Decode steps: tokens/s, share of the byte floor, adapters over base");
  command->footer(
      "\nExamples:\n"
      "  braid bench decode model --batch 1,8 --adapters 0,1,8 --rank 16\n"
      "  braid bench decode model --lora a=adapters/a --lora b=adapters/b --adapters 2 --json "
      "out.json\n"
      "  braid bench decode configs/Qwen3-30B-A3B --load-format dummy --dummy-weights fp8");
  add_engine_options(*command, options->engine);
  const char* group = "Measurement";
  command->add_option("--batch", options->batch, "Requests that decode together")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--adapters", options->adapters,
                   "Different adapters in a batch, at most its size: those of --lora first, then "
                   "random ones; the base model is always measured too")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group(group);
  command->add_option("--rank", options->rank, "Rank of the random adapters; --lora has its own")
      ->capture_default_str()
      ->group(group);
  command->add_option("--context", options->context, "Prompt tokens before the measured steps")
      ->capture_default_str()
      ->group(group);
  command->add_option("--steps", options->steps, "Decode steps in a round")
      ->capture_default_str()
      ->group(group);
  command->add_option("--rounds", options->rounds, "Rounds; the arms take turns")
      ->capture_default_str()
      ->group(group);
  command->add_option("--json", options->json, "Write every sample to this file")
      ->type_name("FILE")
      ->group(group);
  command->callback([=] { run_bench_decode(*options); });
}

}  // namespace braid::apps

// braid bench decode: decode steps with and without adapters, arms interleaved in one run.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "apps/bench_arms.h"
#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/in_flight.h"
#include "apps/operation_table.h"
#include "apps/table.h"
#include "base/json.h"
#include "base/result.h"

namespace braid::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct DecodeOptions : BenchOptions {
  int32_t context = 64;
  int32_t steps = 48;
  bool breakdown = false;
};

// One measured combination.
struct Arm : BenchArm {
  int32_t spare_tokens = 0;      // that its requests make beyond the steps measured
  std::vector<double> step_ms;   // every step of every round
  std::vector<double> round_ms;  // median step of each round
  double seconds = 0;            // of all rounds, prefills included
  double device_seconds = 0;     // of these, that a GPU worked
  OperationTimes operations;     // with --breakdown, of steps that count for nothing else
};

// Runs `batch` requests together and gives the length of each step in which all of them decoded.
// None, where a tiny model had done with the first before the last was there. With
// times_operations, the engine times the operations of these steps.
Result<std::vector<double>> whole_steps(Engine& engine, const DecodeOptions& options,
                                        const Arm& arm, uint64_t seed, bool times_operations) {
  std::string error;  // written by callbacks, read when none can come any more
  // Per request, when each of its tokens came: tokens of one step come at one time, give or take
  // the callbacks of that step.
  std::vector<std::vector<Clock::time_point>> times(static_cast<size_t>(arm.batch));
  int32_t num_decoding = 0;
  InFlight in_flight(engine);  // after what its callbacks write

  for (int32_t i = 0; i < arm.batch; ++i) {
    Request request;
    request.adapter = arm.adapter_of_request[static_cast<size_t>(i)];
    request.prompt = bench_prompt(engine, options.context, seed, i);
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    // Enough that all still decode together for `steps` steps however their prefills were spread.
    request.sampling.max_tokens = options.steps + 2 + arm.batch + arm.spare_tokens;
    auto submitted = in_flight.submit(std::move(request), [&, i](const TokenEvent& event) {
      auto& of_request = times[static_cast<size_t>(i)];
      if (!event.tokens.empty()) of_request.push_back(Clock::now());
      if (event.reason == FinishReason::kError) error = event.error;
      if (!times_operations) return;
      if (event.finished) {
        engine.time_operations(false);
      } else if (of_request.size() == 1 && ++num_decoding == arm.batch) {
        engine.time_operations(true);
      }
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
Status run_round(Engine& engine, const DecodeOptions& options, Arm& arm, uint64_t seed) {
  constexpr int32_t kMostSpareTokens = 1024;
  for (;;) {
    const auto begin = Clock::now();
    const double device_begin = engine.stats().device_seconds;
    auto steps = whole_steps(engine, options, arm, seed, false);
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

// The operations of one more round's steps, by themselves.
Status time_operations(Engine& engine, const DecodeOptions& options, Arm& arm, uint64_t seed) {
  engine.wait_until_idle();  // stats() are of the last step then
  const OperationTimes before = engine.stats().operation_times;
  auto steps = whole_steps(engine, options, arm, seed, true);
  engine.time_operations(false);
  if (!steps) return pass_on(steps);
  engine.wait_until_idle();
  arm.operations = since(engine.stats().operation_times, before);
  return {};
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
  row.ratio = ratio_of_rounds(base.round_ms, arm.round_ms);
  return row;
}

Json to_json(const std::vector<Row>& rows, const DecodeOptions& options, const std::string& device,
             double read_rate) {
  Json json = {{"bench", "decode"},
               {"model", options.engine.config.model_dir.string()},
               {"device", {{"name", device}, {"read_gb_per_s", read_rate / 1e9}}},
               {"context", options.context},
               {"rounds", options.rounds},
               {"version", BRAID_VERSION},
               {"rows", Json::array()}};
  for (const Row& row : rows) {
    Json of_row = {
        {"name", fmt::format("batch {}, {} adapters", row.arm->batch, row.arm->num_adapters)},
        {"tokens_per_s", row.tokens_per_s},
        {"ms_per_step", row.ms},
        {"ms_p10", percentile(row.arm->step_ms, 0.1)},
        {"ms_p90", percentile(row.arm->step_ms, 0.9)},
        {"floor_ms", row.floor_ms},
        {"floor_share", row.floor_ms / row.ms},
        {"device_busy", row.arm->device_seconds / row.arm->seconds},
        {"ratio", row.ratio},
        {"floor_ratio", row.floor_ratio},
        {"steps_ms", row.arm->step_ms}};
    of_row.update(to_json(*row.arm));
    if (options.breakdown) of_row["operations_ms"] = operations_json(row.arm->operations);
    json["rows"].push_back(std::move(of_row));
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

// A table for each batch size, its arms side by side.
void print_breakdown(const std::vector<Arm>& arms) {
  for (size_t i = 0; i < arms.size();) {
    std::vector<OperationColumn> columns;
    const int32_t batch = arms[i].batch;
    for (; i < arms.size() && arms[i].batch == batch; ++i) {
      const int32_t n = arms[i].num_adapters;
      columns.push_back({.heading = n == 0   ? "base"
                                    : n == 1 ? "1 adapter"
                                             : fmt::format("{} adapters", n),
                         .times = arms[i].operations,
                         .step_ms = median(arms[i].step_ms)});
    }
    fmt::print("\nbatch {}, ms a step\n\n{}", batch, operation_table(columns));
  }
  fmt::print("{}", kOperationTableNote);
}

void run_bench_decode(const DecodeOptions& options) {
  if (options.steps < 1 || options.context < 1)
    leave("--steps and --context must be at least 1", kUsage);
  if (options.breakdown && options.engine.device == "cpu")
    leave("--breakdown times the operations of a GPU, not those of --device cpu", kUsage);
  const OpenedBench bench = open_bench(options);
  Engine& engine = *bench.engine;
  std::vector<Arm> arms;
  for (const BenchArm& arm : bench.arms) arms.push_back({arm});

  const double read_rate = engine.measure_read_rate();
  take_turns("bench decode", arms.size(), options.rounds, [&](size_t index, int32_t round) {
    Arm& arm = arms[index];
    auto ran = run_round(engine, options, arm, static_cast<uint64_t>(round + 2));
    if (options.breakdown && ran && arm.device_seconds == 0) {
      return Status(fail(ErrorCode::kUnsupported,
                         "--breakdown times the operations of a GPU, not those of {}",
                         engine.device()));
    }
    if (round >= 0) return ran;
    if (options.breakdown && ran)
      ran = time_operations(engine, options, arm, static_cast<uint64_t>(options.rounds + 2));
    arm.step_ms.clear(), arm.round_ms.clear(), arm.seconds = arm.device_seconds = 0;
    return ran;
  });

  std::vector<Row> rows;
  const Arm* base = nullptr;
  for (const Arm& arm : arms) {
    if (arm.num_adapters == 0) base = &arm;
    rows.push_back(make_row(engine, arm, *base, read_rate, options.context + options.steps / 2));
  }
  print_rows(rows, engine.device(), read_rate);
  if (options.breakdown) print_breakdown(arms);
  write_bench_json(options.json, to_json(rows, options, engine.device(), read_rate));
}

}  // namespace

void add_bench_decode(CLI::App& bench) {
  auto options = std::make_shared<DecodeOptions>();
  options->batch = {1, 8};
  CLI::App* command = bench.add_subcommand(
      "decode", "Decode steps: tokens/s, share of the byte floor, adapters over base");
  command->footer(
      "\nExamples:\n"
      "  braid bench decode model --batch 1,8 --adapters 0,1,8 --rank 16\n"
      "  braid bench decode model --lora a=adapters/a --lora b=adapters/b --adapters 2 --json "
      "out.json\n"
      "  braid bench decode configs/Qwen3-30B-A3B --load-format dummy --dummy-weights fp8\n"
      "  braid bench decode model --batch 16 --adapters 8 --breakdown    where a GPU's time goes");
  add_bench_options(*command, *options, "Requests that decode together");
  command->add_option("--context", options->context, "Prompt tokens before the measured steps")
      ->capture_default_str()
      ->group(kBenchGroup);
  command->add_option("--steps", options->steps, "Decode steps in a round")
      ->capture_default_str()
      ->group(kBenchGroup);
  command
      ->add_flag("--breakdown", options->breakdown,
                 "Also the time of each operation of a step, on a GPU")
      ->group(kBenchGroup);
  command->callback([=] { run_bench_decode(*options); });
}

}  // namespace braid::apps

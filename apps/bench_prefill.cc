// braid bench prefill: prompts with and without adapters, arms interleaved in one run.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "apps/bench_arms.h"
#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/in_flight.h"
#include "apps/table.h"
#include "base/json.h"
#include "base/result.h"

namespace braid::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct PrefillOptions : BenchOptions {
  std::vector<int32_t> tokens = {512, 2048, 8192};
};

// One measured combination.
struct Arm : BenchArm {
  int32_t tokens = 0;            // of each prompt
  std::vector<double> round_ms;  // a prompt, of each round
  double seconds = 0;            // of all rounds
  double device_seconds = 0;     // of these, that a GPU worked
};

// Runs the arm's prompts once; seconds until all of them have their first token. They are submitted
// between two steps, out of a small request's callback, so that every step has the same part of
// them in every round.
Result<double> run_prompts(Engine& engine, const Arm& arm, uint64_t seed) {
  std::string error;  // written by callbacks, read when none can come any more
  Clock::time_point begin, end;
  Status submitted;
  InFlight prompts(engine), first(engine);  // after what their callbacks write
  const auto submit_all = [&]() -> Status {
    for (int32_t i = 0; i < arm.batch; ++i) {
      Request request = {.prompt = bench_prompt(engine, arm.tokens, seed, i),
                         .adapter = arm.adapter_of_request[static_cast<size_t>(i)],
                         .sampling = {.temperature = 0, .max_tokens = 1, .ignore_eos = true}};
      auto status = prompts.submit(std::move(request), [&](const TokenEvent& event) {
        end = Clock::now();
        if (event.reason == FinishReason::kError) error = event.error;
      });
      if (!status) return status;
    }
    return {};
  };
  auto status = first.submit({.prompt = {0}, .sampling = {.temperature = 0, .max_tokens = 1}},
                             [&](const TokenEvent&) {
                               submitted = submit_all();
                               begin = Clock::now();
                             });
  if (!status) return pass_on(status);
  first.wait_for_all();
  if (!submitted) return pass_on(submitted);
  prompts.wait_for_all();
  if (!error.empty()) return fail(ErrorCode::kInvalidArgument, "{}", error);
  return std::chrono::duration<double>(end - begin).count();
}

Status run_round(Engine& engine, Arm& arm, int32_t round, uint64_t seed) {
  engine.wait_until_idle();  // stats() are of the last step then
  const double device_begin = engine.stats().device_seconds;
  const auto begin = Clock::now();
  auto seconds = run_prompts(engine, arm, seed);
  if (!seconds) return pass_on(seconds);
  if (round < 0) return {};
  engine.wait_until_idle();
  arm.round_ms.push_back(*seconds * 1e3 / arm.batch);
  arm.seconds += std::chrono::duration<double>(Clock::now() - begin).count();
  arm.device_seconds += engine.stats().device_seconds - device_begin;
  return {};
}

struct Row {
  const Arm* arm = nullptr;
  double ms = 0;
  double tokens_per_s = 0;
  double ratio = 1;  // of throughput, over base with the same prompts
};

Row make_row(const Arm& arm, const Arm& base) {
  const double ms = median(arm.round_ms);
  return {.arm = &arm,
          .ms = ms,
          .tokens_per_s = arm.tokens * 1e3 / ms,
          .ratio = ratio_of_rounds(base.round_ms, arm.round_ms)};
}

Json to_json(const std::vector<Row>& rows, const PrefillOptions& options,
             const std::string& device) {
  Json json = {
      {"bench", "prefill"},           {"model", options.engine.config.model_dir.string()},
      {"device", {{"name", device}}}, {"max_batch_tokens", options.engine.config.max_batch_tokens},
      {"rounds", options.rounds},     {"version", BRAID_VERSION},
      {"rows", Json::array()}};
  for (const Row& row : rows) {
    Json of_row = {{"name", fmt::format("{} tokens, batch {}, {} adapters", row.arm->tokens,
                                        row.arm->batch, row.arm->num_adapters)},
                   {"tokens", row.arm->tokens},
                   {"tokens_per_s", row.tokens_per_s},
                   {"ms_per_prompt", row.ms},
                   {"device_busy", row.arm->device_seconds / row.arm->seconds},
                   {"ratio", row.ratio},
                   {"rounds_ms", row.arm->round_ms}};
    of_row.update(to_json(*row.arm));
    json["rows"].push_back(std::move(of_row));
  }
  return json;
}

void print_rows(const std::vector<Row>& rows, const PrefillOptions& options,
                const std::string& device) {
  fmt::print("{}; steps of up to {} tokens\n\n", device, options.engine.config.max_batch_tokens);
  Table table({"tokens", "batch", "adapters", "rank", "tokens/s", "ms/prompt", "least", "most",
               "of base", "GPU busy"});
  for (const Row& row : rows) {
    const Arm& arm = *row.arm;
    table.add({fmt::format("{}", arm.tokens), fmt::format("{}", arm.batch),
               arm.num_adapters == 0 ? "-" : fmt::format("{}", arm.num_adapters), shown_rank(arm),
               fmt::format("{:.0f}", row.tokens_per_s), fmt::format("{:.2f}", row.ms),
               fmt::format("{:.2f}", percentile(arm.round_ms, 0)),
               fmt::format("{:.2f}", percentile(arm.round_ms, 1)),
               arm.num_adapters == 0 ? "-" : fmt::format("{:.1f} %", 100 * row.ratio),
               arm.device_seconds == 0
                   ? "-"
                   : fmt::format("{:.1f} %", 100 * arm.device_seconds / arm.seconds)});
  }
  fmt::print(
      "{}\nms/prompt: from when all prompts of a batch are there to the last one's first token, "
      "over "
      "the\n"
      "batch; the median of the rounds. of base: throughput against the base model alone, arms "
      "alternating\n"
      "in this run.\n",
      table.to_string());
}

// The lengths that the engine takes, with a token of reply.
std::vector<int32_t> lengths_that_fit(const Engine& engine, const PrefillOptions& options) {
  std::vector<int32_t> fit = options.tokens;
  std::erase_if(fit, [&](int32_t tokens) { return tokens >= engine.max_context(); });
  for (const int32_t tokens : options.tokens) {
    if (tokens < engine.max_context()) continue;
    complain(fmt::format("--tokens {} left out: the context is {} tokens, of prompt and reply",
                         tokens, engine.max_context()));
  }
  if (fit.empty()) leave("--tokens leaves nothing to measure", kUsage);
  return fit;
}

void run_bench_prefill(const PrefillOptions& options) {
  for (const int32_t tokens : options.tokens) {
    if (tokens < 1) leave(fmt::format("--tokens {}: takes lengths of 1 or more", tokens), kUsage);
  }
  const OpenedBench bench = open_bench(options);
  Engine& engine = *bench.engine;
  std::vector<Arm> arms;
  for (const int32_t tokens : lengths_that_fit(engine, options)) {
    for (const BenchArm& arm : bench.arms) arms.push_back({arm, tokens});
  }
  take_turns("bench prefill", arms.size(), options.rounds, [&](size_t arm, int32_t round) {
    // Another for each arm too: two of them may give the same adapter to their first prompts.
    const auto seed = static_cast<uint64_t>(round + 1) * arms.size() + arm;
    return run_round(engine, arms[arm], round, seed);
  });

  std::vector<Row> rows;
  const Arm* base = nullptr;
  for (const Arm& arm : arms) {
    if (arm.num_adapters == 0) base = &arm;
    rows.push_back(make_row(arm, *base));
  }
  print_rows(rows, options, engine.device());
  write_bench_json(options.json, to_json(rows, options, engine.device()));
}

}  // namespace

void add_bench_prefill(CLI::App& bench) {
  auto options = std::make_shared<PrefillOptions>();
  options->batch = {8};
  CLI::App* command =
      bench.add_subcommand("prefill", "Prompts: tokens/s, time of a prompt, adapters over base");
  command->footer(
      "\nExamples:\n"
      "  braid bench prefill model --tokens 512,2048 --max-batch-tokens 2048\n"
      "  braid bench prefill model --batch 1 --lora a=adapters/a --adapters 1 --json out.json\n"
      "  braid bench prefill configs/Qwen3-30B-A3B --load-format dummy --dummy-weights fp8\n\n"
      "A prompt that is longer than --max-batch-tokens is computed in chunks, over several steps; "
      "several\nshort ones share a step.");
  add_bench_options(*command, *options, "Prompts that arrive together");
  command->add_option("--tokens", options->tokens, "Lengths of the prompts")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group(kBenchGroup);
  command->callback([=] { run_bench_prefill(*options); });
}

}  // namespace braid::apps

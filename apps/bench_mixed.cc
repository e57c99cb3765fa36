// braid bench mixed: what replies feel while prompts arrive, arms interleaved in one run.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "apps/bench_arms.h"
#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/mixed_run.h"
#include "apps/table.h"
#include "base/json.h"
#include "base/result.h"

namespace braid::apps {
namespace {

struct MixedOptions : BenchOptions {
  MixedLoad load = {.context = 512, .prompt_tokens = 8192, .interval = 1, .quiet = 5, .loaded = 20};
};

// One measured combination.
struct Arm : BenchArm {
  std::vector<MixedSamples> rounds;
};

// What one phase did to the streams.
struct Phase {
  std::vector<double> gaps_ms;  // between tokens of a stream; of all streams and rounds
  double tokens_per_s = 0;      // of all streams; the median of the rounds

  double ms(double share) const { return percentile(gaps_ms, share); }
};

struct Row {
  const Arm* arm = nullptr;
  Phase quiet, loaded;
  double p99_ratio = 0;                // loaded over quiet
  double ratio = 1;                    // of loaded tokens/s, over base with the same streams
  std::vector<double> first_token_ms;  // of all rounds
  double prompt_tokens_per_s = 0;      // the median of the rounds
  int32_t num_sent = 0;                // in all rounds
  bool queue_grows = false;            // in more than half of the rounds

  int32_t num_finished() const { return static_cast<int32_t>(first_token_ms.size()); }
};

// Milliseconds a token under load, of each round.
std::vector<double> loaded_round_ms(const Arm& arm) {
  std::vector<double> ms;
  for (const MixedSamples& round : arm.rounds) ms.push_back(1e3 / round.loaded_tokens_per_s);
  return ms;
}

Row make_row(const Arm& arm, const Arm& base) {
  Row row = {.arm = &arm};
  std::vector<double> quiet_rates, loaded_rates, prompt_rates;
  size_t num_growing = 0;
  const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (const MixedSamples& round : arm.rounds) {
    append(row.quiet.gaps_ms, round.quiet_ms);
    append(row.loaded.gaps_ms, round.loaded_ms);
    append(row.first_token_ms, round.first_token_ms);
    quiet_rates.push_back(round.quiet_tokens_per_s);
    loaded_rates.push_back(round.loaded_tokens_per_s);
    prompt_rates.push_back(round.prompt_tokens_per_s);
    row.num_sent += round.num_sent;
    if (queue_grows(round.first_token_ms, round.num_sent)) ++num_growing;
  }
  row.queue_grows = 2 * num_growing > arm.rounds.size();
  row.quiet.tokens_per_s = median(quiet_rates);
  row.loaded.tokens_per_s = median(loaded_rates);
  row.prompt_tokens_per_s = median(prompt_rates);
  row.p99_ratio = row.loaded.ms(0.99) / row.quiet.ms(0.99);
  row.ratio = ratio_of_rounds(loaded_round_ms(base), loaded_round_ms(arm));
  return row;
}

// Samples to a microsecond: there are hundreds of thousands.
Json samples_json(const std::vector<double>& samples_ms) {
  Json json = Json::array();
  for (const double ms : samples_ms) json.push_back(std::round(ms * 1e3) / 1e3);
  return json;
}

void add_phase(Json& json, const std::string& name, const Phase& phase) {
  json[name + "_tokens_per_s"] = phase.tokens_per_s;
  json[name + "_ms"] = phase.ms(0.5);
  json[name + "_ms_p90"] = phase.ms(0.9);
  json[name + "_ms_p99"] = phase.ms(0.99);
  json[name + "_ms_most"] = phase.ms(1);
  json[name + "_samples_ms"] = samples_json(phase.gaps_ms);
}

Json to_json(const std::vector<Row>& rows, const MixedOptions& options, const std::string& device) {
  Json json = {{"bench", "mixed"},
               {"model", options.engine.config.model_dir.string()},
               {"device", {{"name", device}}},
               {"max_batch_tokens", options.engine.config.max_batch_tokens},
               {"context", options.load.context},
               {"prompt_tokens", options.load.prompt_tokens},
               {"interval", options.load.interval},
               {"quiet", options.load.quiet},
               {"seconds", options.load.loaded},
               {"rounds", options.rounds},
               {"version", BRAID_VERSION},
               {"rows", Json::array()}};
  for (const Row& row : rows) {
    const bool has_finished = row.num_finished() > 0;
    Json of_row = {
        {"name", fmt::format("{} streams, {} adapters", row.arm->batch, row.arm->num_adapters)},
        {"p99_ratio", row.p99_ratio},
        {"ratio", row.ratio},
        {"first_token_ms", has_finished ? Json(median(row.first_token_ms)) : Json()},
        {"first_token_ms_most", has_finished ? Json(percentile(row.first_token_ms, 1)) : Json()},
        {"prompts_sent", row.num_sent},
        {"prompts_finished", row.num_finished()},
        {"prompt_tokens_per_s", row.prompt_tokens_per_s},
        {"queue_grows", row.queue_grows},
        {"first_token_samples_ms", samples_json(row.first_token_ms)}};
    of_row.update(to_json(*row.arm));
    add_phase(of_row, "quiet", row.quiet);
    add_phase(of_row, "loaded", row.loaded);
    json["rows"].push_back(std::move(of_row));
  }
  return json;
}

std::string shown_adapters(const BenchArm& arm) {
  return arm.num_adapters == 0 ? "-" : fmt::format("{}", arm.num_adapters);
}

void print_streams(const std::vector<Row>& rows) {
  Table table({"streams", "adapters", "rank", "prompts", "tokens/s", "ms/token", "p90", "p99",
               "most", "p99 of quiet", "of base"});
  const auto add = [&](const Row& row, const Phase& phase, const char* prompts,
                       const std::string& p99_ratio, const std::string& ratio) {
    table.add({fmt::format("{}", row.arm->batch), shown_adapters(*row.arm), shown_rank(*row.arm),
               prompts, fmt::format("{:.1f}", phase.tokens_per_s),
               fmt::format("{:.2f}", phase.ms(0.5)), fmt::format("{:.2f}", phase.ms(0.9)),
               fmt::format("{:.2f}", phase.ms(0.99)), fmt::format("{:.2f}", phase.ms(1)), p99_ratio,
               ratio});
  };
  for (const Row& row : rows) {
    add(row, row.quiet, "none", "-", "-");
    add(row, row.loaded, "arrive", fmt::format("{:.2f} x", row.p99_ratio),
        row.arm->num_adapters == 0 ? "-" : fmt::format("{:.1f} %", 100 * row.ratio));
  }
  fmt::print(
      "{}\nms/token: from one token of a stream to its next, of all streams; median and "
      "percentiles. tokens/s:\n"
      "of all streams; of base: that while prompts arrive, arms alternating in this run. p99 of "
      "quiet: p99\n"
      "while prompts arrive over that without them.\n\n",
      table.to_string());
}

void print_prompts(const std::vector<Row>& rows, const MixedLoad& load) {
  Table table({"streams", "adapters", "rank", "first token ms", "most", "tokens/s", "finished",
               "sent", "keep up"});
  for (const Row& row : rows) {
    const bool has_finished = row.num_finished() > 0;
    table.add({fmt::format("{}", row.arm->batch), shown_adapters(*row.arm), shown_rank(*row.arm),
               has_finished ? fmt::format("{:.1f}", median(row.first_token_ms)) : "-",
               has_finished ? fmt::format("{:.1f}", percentile(row.first_token_ms, 1)) : "-",
               fmt::format("{:.0f}", row.prompt_tokens_per_s),
               fmt::format("{}", row.num_finished()), fmt::format("{}", row.num_sent),
               row.queue_grows ? "no" : "yes"});
  }
  fmt::print(
      "{}\nfirst token: from when a prompt is sent to its first token, of those that had it within "
      "the\n"
      "measured time (finished); the median. tokens/s: of prompts, computed beside the streams.\n",
      table.to_string());
  for (const Row& row : rows) {
    if (!row.queue_grows) continue;
    fmt::print(
        "\nThe queue grows at {} streams, {}: {:.0f} tokens/s of prompts arrive, {:.0f} are "
        "computed.\n",
        row.arm->batch,
        row.arm->num_adapters == 0 ? "base" : fmt::format("{} adapters", row.arm->num_adapters),
        load.prompt_tokens / load.interval, row.prompt_tokens_per_s);
  }
}

void check_options(const MixedOptions& options) {
  const MixedLoad& load = options.load;
  if (load.context < 1 || load.prompt_tokens < 1)
    leave("--context and --prompt-tokens must be at least 1", kUsage);
  constexpr double kDay = 86400;
  for (const auto& [option, value] : {std::pair{"--interval", load.interval},
                                      {"--quiet", load.quiet},
                                      {"--seconds", load.loaded}}) {
    if (!(value > 0 && value <= kDay))
      leave(fmt::format("{} {}: takes seconds above 0, up to {}", option, value, kDay), kUsage);
  }
  constexpr double kMostPrompts = 100'000;
  if (load.loaded / load.interval > kMostPrompts) {
    leave(fmt::format("--seconds {} with --interval {} are more than {} prompts", load.loaded,
                      load.interval, kMostPrompts),
          kUsage);
  }
  const int32_t max_batch_tokens = options.engine.config.max_batch_tokens;
  for (const int32_t streams : options.batch) {
    if (streams < max_batch_tokens) continue;
    leave(fmt::format("--max-batch-tokens {} with --streams {} leaves a step no token for prompts; "
                      "raise it",
                      max_batch_tokens, streams),
          kUsage);
  }
}

// The engine of the options needs places for the streams and the prompts beside them.
BenchOptions with_places(const MixedOptions& options) {
  BenchOptions result = options;
  EngineConfig& config = result.engine.config;
  const int32_t streams = options.batch.empty() ? 0 : *std::ranges::max_element(options.batch);
  config.max_batch_size = std::max(
      config.max_batch_size, streams + prompts_at_a_time(options.load, config.max_batch_tokens));
  config.max_queued_requests =
      std::max(config.max_queued_requests, streams + num_prompts(options.load));
  return result;
}

void check_context(const Engine& engine, const MixedLoad& load) {
  for (const auto& [option, tokens, reply] :
       {std::tuple{"--context", load.context, 2}, {"--prompt-tokens", load.prompt_tokens, 1}}) {
    if (tokens + reply <= engine.max_context()) continue;
    leave(fmt::format("{} {}: the context is {} tokens, of prompt and reply", option, tokens,
                      engine.max_context()),
          kUsage);
  }
}

void run_bench_mixed(const MixedOptions& options) {
  check_options(options);
  const BenchOptions bench_options = with_places(options);
  const EngineConfig& config = bench_options.engine.config;
  const OpenedBench bench = open_bench(bench_options);
  Engine& engine = *bench.engine;
  check_context(engine, options.load);
  std::vector<Arm> arms;
  for (const BenchArm& arm : bench.arms) arms.push_back({arm});

  take_turns("bench mixed", arms.size(), options.rounds,
             [&](size_t index, int32_t round) -> Status {
               Arm& arm = arms[index];
               // Another for each arm too: two of them may give the same adapter to their first
               // requests.
               const auto seed = static_cast<uint64_t>(round + 1) * arms.size() + index;
               if (round < 0) return warm_up_mixed(engine, config, options.load, arm, seed);
               auto samples = run_mixed(engine, config, options.load, arm, seed);
               if (!samples) return pass_on(samples);
               arm.rounds.push_back(std::move(*samples));
               return {};
             });

  std::vector<Row> rows;
  const Arm* base = nullptr;
  for (const Arm& arm : arms) {
    if (arm.num_adapters == 0) base = &arm;
    rows.push_back(make_row(arm, *base));
  }
  fmt::print("{}; steps of up to {} tokens; prompts of {} tokens every {} s, for {} s\n\n",
             engine.device(), config.max_batch_tokens, options.load.prompt_tokens,
             options.load.interval, options.load.loaded);
  print_streams(rows);
  print_prompts(rows, options.load);
  write_bench_json(options.json, to_json(rows, options, engine.device()));
}

}  // namespace

void add_bench_mixed(CLI::App& bench) {
  auto options = std::make_shared<MixedOptions>();
  options->batch = {64};
  options->batch_option = "--streams";
  options->rounds = 1;
  MixedLoad& load = options->load;
  CLI::App* command = bench.add_subcommand(
      "mixed", "Replies while prompts arrive: time between tokens, time to first token");
  command->footer(
      "\nExamples:\n"
      "  braid bench mixed model --streams 64 --prompt-tokens 8192 --interval 1\n"
      "  braid bench mixed model --max-batch-tokens 256     smaller chunks: steadier replies\n"
      "  braid bench mixed model --max-batch-tokens 2048    larger ones: prompts that keep up\n"
      "  braid bench mixed model --lora a=adapters/a --adapters 1 --json out.json\n"
      "  braid bench mixed configs/Qwen3-30B-A3B --load-format dummy --dummy-weights fp8\n\n"
      "The streams decode, first by themselves, then beside prompts that arrive whether or not "
      "the ones\n"
      "before them are done. A step takes a token of every stream and fills up to "
      "--max-batch-tokens with\n"
      "prompts: that is how long a stream waits for its next token, and how fast prompts get "
      "through.");
  add_bench_options(*command, *options, "Requests that decode together all the time");
  const auto add = [&](const char* name, auto& to, const char* what) {
    command->add_option(name, to, what)->capture_default_str()->group(kBenchGroup);
  };
  add("--context", load.context, "Prompt tokens of each stream");
  add("--prompt-tokens", load.prompt_tokens, "Length of the prompts that arrive");
  add("--interval", load.interval, "Seconds from one prompt to the next");
  add("--quiet", load.quiet, "Seconds measured before the first prompt");
  add("--seconds", load.loaded, "Seconds measured while prompts arrive");
  command->callback([=] { run_bench_mixed(*options); });
}

}  // namespace braid::apps

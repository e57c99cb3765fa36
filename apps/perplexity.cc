// braid perplexity: how well a model, and the model with each adapter, predicts a text. To compare
// weight formats, and to see what an adapter changes.

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "apps/bench_json.h"
#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/progress.h"
#include "apps/session.h"
#include "apps/table.h"
#include "apps/text_windows.h"
#include "base/file.h"
#include "base/json.h"

namespace braid::apps {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

struct PerplexityOptions {
  EngineOptions engine;
  std::string text;
  int32_t window = 512;
  int32_t stride = 256;
  std::string json;
};

struct Row {
  std::string adapter;  // "" is the base model
  TextScore score;
};

void print_rows(const std::vector<Row>& rows, const Engine& engine) {
  Table table({"adapter", "tokens", "perplexity", "+-", "log p a token", "of base"});
  for (const Row& row : rows) {
    table.add({row.adapter.empty() ? "-" : row.adapter, fmt::format("{}", row.score.num_tokens()),
               fmt::format("{:.4f}", row.score.perplexity()),
               fmt::format("{:.4f}", row.score.standard_error()),
               fmt::format("{:.5f}", row.score.mean_logprob()),
               fmt::format("{:.4f}", row.score.perplexity() / rows.front().score.perplexity())});
  }
  fmt::print(
      "{}\n\n{}\nperplexity: exp of minus the mean log probability of a token. +-: its "
      "standard error.\nof base: perplexity over that of the model without an adapter.\n",
      engine.device(), table.to_string());
}

Json to_json(const std::vector<Row>& rows, const PerplexityOptions& options, const Engine& engine) {
  Json json = {{"bench", "perplexity"},    {"model", options.engine.config.model_dir.string()},
               {"text", options.text},     {"device", {{"name", engine.device()}}},
               {"window", options.window}, {"stride", options.stride},
               {"version", BRAID_VERSION}, {"rows", Json::array()}};
  for (const Row& row : rows) {
    json["rows"].push_back({{"name", row.adapter.empty() ? "base" : row.adapter},
                            {"tokens", row.score.num_tokens()},
                            {"perplexity", row.score.perplexity()},
                            {"standard_error", row.score.standard_error()},
                            {"mean_logprob", row.score.mean_logprob()}});
  }
  return json;
}

void run_perplexity(const PerplexityOptions& options) {
  // Mistakes are found here, before minutes of loading.
  if (auto windows = text_windows(2, options.window, options.stride); !windows)
    leave(windows.error().message, kUsage);
  auto text = read_file(options.text, kMaxTextBytes);
  if (!text) leave(text.error().message);
  auto loras = parse_loras(options.engine.lora);
  if (!loras) leave("--lora: " + loras.error().message);

  auto engine = open_engine(options.engine);
  if (!engine) leave(engine.error().message);
  auto tokens = (*engine)->tokenize(*text);
  if (!tokens) leave(options.text + ": " + tokens.error().message);
  auto windows = text_windows(static_cast<int64_t>(tokens->size()), options.window, options.stride);
  if (!windows) leave(options.text + ": " + windows.error().message);

  std::vector<Row> rows(1);
  for (const NamedAdapter& lora : *loras) rows.push_back({.adapter = lora.name});
  Session session(**engine);
  for (const Row& row : rows) {
    for (const TextWindow& window : *windows) {
      Answer answer = {.adapter = row.adapter};
      answer.request = {
          .prompt = {tokens->begin() + window.begin, tokens->begin() + window.end},
          .sampling = {
              .temperature = 0, .max_tokens = 1, .ignore_eos = true, .prompt_logprobs = 0}};
      if (auto added = session.add(std::move(answer)); !added) leave(added.error().message);
    }
  }

  Progress progress;  // takes leave() for failure
  const auto total = static_cast<int64_t>(session.size());
  int64_t done = 0;
  std::string error;
  progress.update("perplexity", 0, total);
  session.run([&](const Answer& answer) {
    const auto place = static_cast<size_t>(done++);
    const TextWindow& window = (*windows)[place % windows->size()];
    if (!answer.error.empty() && error.empty()) error = answer.error;
    TextScore& score = rows[place / windows->size()].score;
    // Entry i is of token i + 1.
    for (size_t i = 0; i < answer.prompt_logprobs.size(); ++i) {
      if (window.begin + static_cast<int64_t>(i) + 1 >= window.first_scored)
        score.add(answer.prompt_logprobs[i].logprob);
    }
    progress.update("perplexity", done, total);
  });
  if (!error.empty()) leave(error);
  progress.finish(true);
  print_rows(rows, **engine);
  write_bench_json(options.json, to_json(rows, options, **engine));
}

}  // namespace

void add_perplexity(CLI::App& program) {
  auto options = std::make_shared<PerplexityOptions>();
  CLI::App* command =
      program.add_subcommand("perplexity", "How well a model and its adapters predict a text");
  command->footer(
      "\nLower is better; a model that knows nothing has the size of its vocabulary. Compare "
      "numbers\n"
      "of one text, tokenizer, --window and --stride only.\n\n"
      "Examples:\n"
      "  braid perplexity model --text book.txt\n"
      "  braid perplexity model-nvfp4 --text book.txt --lora a=adapters/a --json nvfp4.json");
  add_engine_options(*command, options->engine);
  const char* group = "Measurement";
  command->add_option("--text", options->text, "File of UTF-8 text")
      ->type_name("FILE")
      ->required()
      ->group(group);
  command->add_option("--window", options->window, "Tokens that the model sees at a time")
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--stride", options->stride,
                   "Tokens scored in each window but the first; the rest stand before them")
      ->capture_default_str()
      ->group(group);
  command->add_option("--json", options->json, "Write the rows to this file")
      ->type_name("FILE")
      ->group(group);
  command->callback([=] { run_perplexity(*options); });
}

}  // namespace braid::apps

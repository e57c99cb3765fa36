// braid generate: prompts in, answers out; one prompt may be asked of several adapters at once, and
// a file of requests runs as one mixed batch.

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <iostream>
#include <mutex>
#include <optional>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/terminal.h"
#include "base/json.h"

namespace braid::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct GenerateOptions {
  EngineOptions engine;
  std::vector<std::string> prompts;
  std::vector<std::string> chats;
  std::string system;
  std::string input;
  std::vector<std::string> adapters;
  SamplingParams sampling;
  bool has_temperature = false, has_top_k = false, has_top_p = false, has_repetition = false;
  int32_t logprobs = -1;
  bool json = false;
};

// One request and what came of it.
struct Answer {
  std::string adapter;  // empty: base
  std::string prompt;   // as people wrote it
  Request request;
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<TokenLogprob> logprobs;
  FinishReason reason = FinishReason::kStop;
  std::string error;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  bool finished = false;
};

std::string shown_name(const Answer& answer) {
  return answer.adapter.empty() ? "base" : answer.adapter;
}

Json to_json(const Answer& answer) {
  Json json = {{"adapter", answer.adapter.empty() ? Json() : Json(answer.adapter)},
               {"prompt", answer.prompt},
               {"text", answer.text},
               {"tokens", answer.tokens},
               {"finish_reason", name(answer.reason)},
               {"usage",
                {{"prompt_tokens", answer.prompt_tokens},
                 {"cached_tokens", answer.cached_tokens},
                 {"completion_tokens", answer.tokens.size()}}}};
  if (!answer.error.empty()) json["error"] = answer.error;
  for (const TokenLogprob& entry : answer.logprobs) {
    Json top = Json::array();
    for (const auto& [token, logprob] : entry.top)
      top.push_back({{"token", token}, {"logprob", logprob}});
    json["logprobs"].push_back(
        {{"token", entry.token}, {"logprob", entry.logprob}, {"rank", entry.rank}, {"top", top}});
  }
  return json;
}

// Runs requests on the engine and gathers their answers.
class Session {
 public:
  Session(Engine& engine, const GenerateOptions& options) : engine_(engine), options_(options) {}

  // Adds a prompt, as text (after the model's beginning-of-text token) or as chat messages.
  Status add(const std::string& shown, const std::string& adapter,
             Result<std::vector<int32_t>> prompt, const SamplingParams& sampling) {
    if (!prompt) return pass_on(prompt);
    Answer& answer = answers_.emplace_back();
    answer.prompt = shown;
    answer.request.prompt = std::move(*prompt);
    answer.request.sampling = sampling;
    if (!adapter.empty() && adapter != "base") {
      const auto id = engine_.find_adapter(adapter);
      if (!id) {
        return fail(ErrorCode::kNotFound, "there is no adapter \"{}\"; name it with --lora {}=PATH",
                    adapter, adapter);
      }
      answer.adapter = adapter;
      answer.request.adapter = *id;
    }
    return {};
  }

  // Submits everything and waits for the last event of each. `live` prints text as it comes.
  Status run(bool live) {
    begin_ = Clock::now();
    for (Answer& answer : answers_) {
      auto id = engine_.submit(answer.request, [this, &answer, live](const TokenEvent& event) {
        take(answer, event, live);
      });
      if (!id) return pass_on(id);
    }
    std::unique_lock lock(mutex_);
    all_finished_.wait(lock, [&] { return num_finished_ == answers_.size(); });
    seconds_ = std::chrono::duration<double>(Clock::now() - begin_).count();
    return {};
  }

  const std::deque<Answer>& answers() const { return answers_; }

  std::string summary() const {
    int64_t prompt = 0, cached = 0, generated = 0;
    for (const Answer& answer : answers_) {
      prompt += answer.prompt_tokens;
      cached += answer.cached_tokens;
      generated += static_cast<int64_t>(answer.tokens.size());
    }
    return fmt::format(
        "{} request{}, {} prompt tokens ({} cached), {} generated in {:.2f} s: {:.1f} tokens/s",
        answers_.size(), answers_.size() == 1 ? "" : "s", prompt, cached, generated, seconds_,
        static_cast<double>(generated) / seconds_);
  }

 private:
  void take(Answer& answer, const TokenEvent& event, bool live) {
    answer.text += event.text;
    answer.tokens.insert(answer.tokens.end(), event.tokens.begin(), event.tokens.end());
    answer.logprobs.insert(answer.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
    answer.prompt_tokens = event.prompt_tokens;
    answer.cached_tokens = event.cached_tokens;
    if (live && !event.text.empty()) {
      std::cout << printable(event.text) << std::flush;
    }
    if (!event.finished) return;
    answer.reason = event.reason;
    answer.error = event.error;
    const std::lock_guard lock(mutex_);
    answer.finished = true;
    ++num_finished_;
    all_finished_.notify_one();
  }

  Engine& engine_;
  const GenerateOptions& options_;
  std::deque<Answer> answers_;  // a deque: callbacks keep references
  std::mutex mutex_;
  std::condition_variable all_finished_;
  size_t num_finished_ = 0;
  Clock::time_point begin_;
  double seconds_ = 0;
};

Result<std::vector<int32_t>> encode_chat(const Engine& engine, const Json& messages,
                                         const Json& options) {
  return engine.apply_chat_template(messages.dump(), options.dump());
}

// A line of --input: {"prompt": "..."} or {"messages": [...]}, and optionally "adapter",
// "max_tokens", "temperature", "seed".
Status add_line(Session& session, const Engine& engine, const std::string& line,
                SamplingParams sampling) {
  auto json = parse_json(line);
  if (!json) return pass_on(json);
  if (!json->is_object()) return fail(ErrorCode::kInvalidArgument, "not a JSON object");
  try {
    for (const auto& [key, value] : json->items()) {
      if (key == "max_tokens") {
        sampling.max_tokens = value.get<int32_t>();
      } else if (key == "temperature") {
        sampling.temperature = value.get<float>();
      } else if (key == "seed") {
        sampling.seed = value.get<uint64_t>();
      } else if (key != "prompt" && key != "messages" && key != "adapter" &&
                 key != "chat_template_kwargs") {
        return fail(ErrorCode::kInvalidArgument,
                    "unknown key \"{}\"; known are prompt, messages, adapter, max_tokens, "
                    "temperature, seed "
                    "and chat_template_kwargs",
                    key);
      }
    }
    const bool no_adapter = !json->contains("adapter") || (*json)["adapter"].is_null();
    const std::string adapter = no_adapter ? "" : (*json)["adapter"].get<std::string>();
    if (json->contains("prompt") == json->contains("messages")) {
      return fail(ErrorCode::kInvalidArgument, "needs either \"prompt\" or \"messages\"");
    }
    if (json->contains("prompt")) {
      const auto text = (*json)["prompt"].get<std::string>();
      return session.add(text, adapter, engine.tokenize(text), sampling);
    }
    const Json& messages = (*json)["messages"];
    std::string shown;
    if (messages.is_array() && !messages.empty() && messages.back().is_object() &&
        messages.back().contains("content") && messages.back()["content"].is_string()) {
      shown = messages.back()["content"];
    }
    return session.add(
        shown, adapter,
        encode_chat(engine, messages, json->value("chat_template_kwargs", Json::object())),
        sampling);
  } catch (const Json::exception&) {
    return fail(
        ErrorCode::kInvalidArgument,
        "a value has the wrong type; prompt and adapter are strings, max_tokens and seed integers, "
        "temperature a number");
  }
}

Status add_file(Session& session, const Engine& engine, const std::string& path,
                const SamplingParams& sampling) {
  std::ifstream file;
  std::istream* in = &std::cin;
  if (path != "-") {
    file.open(path);
    if (!file) return fail(ErrorCode::kNotFound, "{}: cannot open for reading", path);
    in = &file;
  }
  int number = 0;
  for (std::string line; std::getline(*in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    auto added = add_line(session, engine, line, sampling);
    if (!added) return pass_on(added, fmt::format("{}:{}", path, number));
  }
  return {};
}

Status add_all(Session& session, const Engine& engine, const GenerateOptions& options,
               const SamplingParams& sampling) {
  std::vector<std::string> adapters = options.adapters;
  if (adapters.empty()) adapters.push_back("base");
  for (const std::string& prompt : options.prompts) {
    for (const std::string& adapter : adapters) {
      auto added = session.add(prompt, adapter, engine.tokenize(prompt), sampling);
      if (!added) return added;
    }
  }
  for (const std::string& chat : options.chats) {
    Json messages = Json::array();
    if (!options.system.empty())
      messages.push_back({{"role", "system"}, {"content", options.system}});
    messages.push_back({{"role", "user"}, {"content", chat}});
    for (const std::string& adapter : adapters) {
      auto added =
          session.add(chat, adapter, encode_chat(engine, messages, Json::object()), sampling);
      if (!added) return added;
    }
  }
  if (!options.input.empty()) return add_file(session, engine, options.input, sampling);
  return {};
}

// The model's own defaults, with what the command line says over them.
SamplingParams sampling_of(const Engine& engine, const GenerateOptions& options) {
  SamplingParams sampling = options.sampling;
  const SamplingParams defaults = engine.default_sampling();
  if (!options.has_temperature) sampling.temperature = defaults.temperature;
  if (!options.has_top_k) sampling.top_k = defaults.top_k;
  if (!options.has_top_p) sampling.top_p = defaults.top_p;
  if (!options.has_repetition) sampling.repetition_penalty = defaults.repetition_penalty;
  if (options.logprobs >= 0) sampling.logprobs = options.logprobs;
  return sampling;
}

void print_answers(const Session& session, const Terminal& terminal) {
  const std::string* last_prompt = nullptr;
  for (const Answer& answer : session.answers()) {
    if (last_prompt == nullptr || *last_prompt != answer.prompt) {
      fmt::print("{}{}\n", last_prompt == nullptr ? "" : "\n",
                 bold(terminal, wrap(printable(answer.prompt), terminal.columns)));
    }
    last_prompt = &answer.prompt;
    fmt::print("{}\n{}\n", green(terminal, "[" + shown_name(answer) + "]"),
               wrap(printable(answer.text), terminal.columns));
    if (!answer.error.empty()) fmt::print("{}\n", red(terminal, printable(answer.error)));
  }
}

void run_generate(const GenerateOptions& options) {
  if (options.prompts.empty() && options.chats.empty() && options.input.empty()) {
    leave("nothing to do; give --prompt TEXT, --chat TEXT or --input FILE", 2);
  }
  auto engine = open_engine(options.engine);
  if (!engine) leave(engine.error().message);
  Session session(**engine, options);
  auto added = add_all(session, **engine, options, sampling_of(**engine, options));
  if (!added) leave(added.error().message);

  const Terminal terminal = terminal_of(STDOUT_FILENO);
  const bool live = session.answers().size() == 1 && !options.json;
  auto ran = session.run(live);
  if (!ran) leave(ran.error().message);

  bool failed = false;
  for (const Answer& answer : session.answers()) {
    if (options.json)
      fmt::print("{}\n", to_json(answer).dump(-1, ' ', false, Json::error_handler_t::replace));
    failed |= answer.reason == FinishReason::kError;
  }
  if (live) {
    fmt::print("\n");
    const std::string& error = session.answers().front().error;
    if (!error.empty()) leave(error);
  } else if (!options.json) {
    print_answers(session, terminal);
  }
  std::fflush(stdout);
  fmt::print(stderr, "{}\n", dim(terminal_of(STDERR_FILENO), session.summary()));
  if (failed) throw CLI::RuntimeError(1);
}

}  // namespace

void add_generate(CLI::App& program) {
  auto options = std::make_shared<GenerateOptions>();
  options->sampling.max_tokens = 128;
  CLI::App* command =
      program.add_subcommand("generate", "Answer prompts with the base model and with adapters");
  command->footer(
      "\nExamples:\n"
      "  braid generate model --prompt \"Once upon a time\" --temperature 0\n"
      "  braid generate model --lora sql=adapters/sql --adapter base --adapter sql --chat \"All "
      "users?\"\n"
      "  braid generate model --lora a=x --lora b=y --input requests.jsonl --json > answers.jsonl");
  add_engine_options(*command, options->engine);

  const char* prompts = "Prompts";
  command->add_option("--prompt", options->prompts, "Text to continue; may be given many times")
      ->group(prompts);
  command->add_option("--chat", options->chats, "A user's message, put through the chat template")
      ->group(prompts);
  command->add_option("--system", options->system, "System message for --chat")->group(prompts);
  command
      ->add_option("--input", options->input,
                   "Requests as JSON lines, - for stdin: {\"prompt\" or \"messages\", \"adapter\", "
                   "\"max_tokens\", ...}")
      ->type_name("FILE")
      ->group(prompts);
  command
      ->add_option("--adapter", options->adapters,
                   "Who answers --prompt and --chat: a name given with --lora, or `base`; many are "
                   "answered side by side")
      ->group(prompts);

  const char* sampling = "Sampling (defaults are the model's generation_config.json)";
  SamplingParams& s = options->sampling;
  command->add_option("--max-tokens", s.max_tokens, "Longest reply")
      ->capture_default_str()
      ->group(sampling);
  command->add_option("--min-tokens", s.min_tokens, "No end before that many")->group(sampling);
  auto* temperature =
      command->add_option("--temperature", s.temperature, "0 always picks the most likely token")
          ->group(sampling);
  auto* top_k =
      command->add_option("--top-k", s.top_k, "Keep the k most likely tokens; 0 keeps all")
          ->group(sampling);
  auto* top_p =
      command->add_option("--top-p", s.top_p, "Keep the most likely tokens up to this probability")
          ->group(sampling);
  command->add_option("--min-p", s.min_p, "Drop tokens less likely than this share of the best")
      ->group(sampling);
  auto* repetition =
      command
          ->add_option("--repetition-penalty", s.repetition_penalty, "Above 1 discourages repeats")
          ->group(sampling);
  command->add_option("--presence-penalty", s.presence_penalty, "In [-2, 2]")->group(sampling);
  command->add_option("--frequency-penalty", s.frequency_penalty, "In [-2, 2]")->group(sampling);
  command->add_option("--seed", s.seed, "The same seed gives the same reply")->group(sampling);
  command->add_option("--stop", s.stop, "End the reply before this text; may be given many times")
      ->group(sampling);
  command->add_flag("--ignore-eos", s.ignore_eos, "Go on past the end token")->group(sampling);
  command
      ->add_option("--logprobs", options->logprobs,
                   "With --json: log probabilities and this many alternatives")
      ->group(sampling);

  command->add_flag("--json", options->json, "One JSON object an answer instead of text");
  command->callback([=] {
    options->has_temperature = temperature->count() > 0;
    options->has_top_k = top_k->count() > 0;
    options->has_top_p = top_p->count() > 0;
    options->has_repetition = repetition->count() > 0;
    run_generate(*options);
  });
}

}  // namespace braid::apps

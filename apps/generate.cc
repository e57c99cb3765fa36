// braid generate: prompts in, answers out; one prompt may be asked of several adapters at once, and
// a file of requests runs as one mixed batch.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <system_error>
#include <utility>

#include "apps/commands.h"
#include "apps/generate_options.h"
#include "apps/progress.h"
#include "apps/request_lines.h"
#include "apps/sampling_json.h"
#include "apps/session.h"
#include "apps/terminal.h"
#include "base/json.h"

namespace braid::apps {
namespace {

// What was asked, checked as far as that goes without the model.
struct Work {
  std::vector<std::string> adapters;  // that answer --prompt and --chat; "" is the base model
  Json template_options;
  std::vector<RequestLine> lines;
};

// What the command line's values are laid over.
SamplingParams base_sampling(SamplingParams defaults) {
  defaults.max_tokens = 128;  // enough to see an answer, few enough to wait for
  return defaults;
}

Result<std::vector<RequestLine>> read_input(const std::string& path,
                                            const SamplingParams& defaults) {
  if (path.empty()) return std::vector<RequestLine>();
  if (path == "-") return read_request_lines(std::cin, "stdin", defaults);
  std::ifstream file(path);
  if (!file) return fail(ErrorCode::kNotFound, "{}: cannot open for reading", path);
  return read_request_lines(file, path, defaults);
}

// Mistakes are found here, before minutes of loading.
Result<Work> plan(const GenerateOptions& options) {
  auto sampling = sampling_from_json(options.sampling, base_sampling({}));
  if (!sampling) return pass_on(sampling);
  auto template_options = parse_json(options.template_options);
  if (!template_options) return pass_on(template_options, "--chat-template-kwargs");
  if (!template_options->is_object()) {
    return fail(ErrorCode::kInvalidArgument,
                "--chat-template-kwargs is {}, accepted is an object, as "
                "{{\"enable_thinking\": false}}",
                options.template_options);
  }
  auto lines = read_input(options.input, *sampling);
  if (!lines) return pass_on(lines);

  Work work = {.template_options = std::move(*template_options), .lines = std::move(*lines)};
  for (const std::string& adapter : options.adapters)
    work.adapters.push_back(adapter == "base" ? "" : adapter);
  if (work.adapters.empty()) work.adapters.emplace_back();

  auto loras = parse_loras(options.engine.lora);
  if (!loras) return pass_on(loras, "--lora");
  const auto check_name = [&](const std::string& name) -> Status {
    const auto has_name = [&](const NamedAdapter& lora) { return lora.name == name; };
    if (name.empty() || std::any_of(loras->begin(), loras->end(), has_name)) return {};
    return fail(ErrorCode::kNotFound, "there is no adapter \"{}\"; name it with --lora {}=PATH",
                name, name);
  };
  for (const std::string& adapter : work.adapters) {
    if (auto status = check_name(adapter); !status) return pass_on(status);
  }
  for (const RequestLine& line : work.lines) {
    if (auto status = check_name(line.adapter); !status) return pass_on(status, line.place);
  }
  return work;
}

Result<std::vector<int32_t>> encode_chat(const Engine& engine, const Json& messages,
                                         const Json& options) {
  return engine.apply_chat_template(messages.dump(), options.dump());
}

Status add(Session& session, Answer answer, Result<std::vector<int32_t>> prompt) {
  if (!prompt) return pass_on(prompt);
  answer.request.prompt = std::move(*prompt);
  return session.add(std::move(answer));
}

Status add_line(Session& session, const Engine& engine, const RequestLine& line,
                const Json& template_options, const SamplingParams& defaults) {
  auto sampling = sampling_from_json(line.sampling, defaults);
  if (!sampling) return pass_on(sampling);
  Answer answer = {.place = line.place, .adapter = line.adapter, .prompt = line.prompt};
  answer.request.sampling = std::move(*sampling);
  if (line.prompt.is_array())
    return add(session, std::move(answer), line.prompt.get<std::vector<int32_t>>());
  if (line.prompt.is_string())
    return add(session, std::move(answer), engine.tokenize(line.prompt.get<std::string>()));
  // The last message stands for the conversation.
  const Json& last = line.messages.back();
  answer.prompt = last.contains("content") && last["content"].is_string() ? last["content"] : "";
  Json merged = template_options;
  merged.update(line.template_options);
  return add(session, std::move(answer), encode_chat(engine, line.messages, merged));
}

Status add_all(Session& session, const Engine& engine, const GenerateOptions& options,
               const Work& work) {
  auto sampling = sampling_from_json(options.sampling, base_sampling(engine.default_sampling()));
  if (!sampling) return pass_on(sampling);
  const auto add_text = [&](const std::string& text,
                            const Result<std::vector<int32_t>>& prompt) -> Status {
    for (const std::string& adapter : work.adapters) {
      Answer answer = {.adapter = adapter, .prompt = text};
      answer.request.sampling = *sampling;
      if (auto added = add(session, std::move(answer), prompt); !added) return added;
    }
    return {};
  };
  for (const std::string& prompt : options.prompts) {
    if (auto added = add_text(prompt, engine.tokenize(prompt)); !added) return added;
  }
  for (const std::string& chat : options.chats) {
    Json messages = Json::array();
    if (!options.system.empty())
      messages.push_back({{"role", "system"}, {"content", options.system}});
    messages.push_back({{"role", "user"}, {"content", chat}});
    auto added = add_text(chat, encode_chat(engine, messages, work.template_options));
    if (!added) return added;
  }
  for (const RequestLine& line : work.lines) {
    auto added = add_line(session, engine, line, work.template_options, *sampling);
    if (!added) return pass_on(added, line.place);
  }
  return {};
}

// Prints a single answer as its text comes.
void run_live(Session& session, const Engine& engine) {
  const auto print_text = [](std::string_view text) { write_out(printable(text)); };
  const auto print_rest = [&](const Answer& answer) {
    // What has no text has not been shown yet.
    const bool is_refused = answer.tokens.empty() && !answer.error.empty();
    if (is_refused) return;
    write_out((answer.text.empty() ? shown_reply(answer, engine) : "") + "\n" +
              render_logprobs(answer, engine));
  };
  session.run(print_rest, print_text);
}

// Prints each answer when it and all before it are there.
void run_many(Session& session, const Engine& engine, bool json) {
  const Terminal terminal = terminal_of(STDOUT_FILENO);
  Progress progress;  // where answers do not scroll by themselves
  const auto total = static_cast<int64_t>(session.size());
  int64_t done = 0;
  Json last_prompt;
  if (!terminal.is_tty) progress.update("generate", 0, total);
  const auto print = [&](const Answer& answer) {
    if (json) {
      write_out(to_json(answer).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    } else {
      std::string heading;
      if (answer.prompt != last_prompt || done == 0)
        heading = (done > 0 ? "\n" : "") + render_prompt(answer, terminal);
      write_out(heading + render_answer(answer, engine, terminal) +
                render_logprobs(answer, engine));
      last_prompt = answer.prompt;
    }
    ++done;
    if (!terminal.is_tty) progress.update("generate", done, total);
  };
  try {
    session.run(print);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::broken_pipe) progress.abandon();
    throw;
  }
  progress.finish(true);
}

void run_generate(const GenerateOptions& options) {
  if (auto usage = check_usage(options); !usage) leave(usage.error().message, kUsage);
  auto work = plan(options);
  if (!work) leave(work.error().message);
  auto engine = open_engine(options.engine);
  if (!engine) leave(engine.error().message);
  Session session(**engine);
  auto added = add_all(session, **engine, options, *work);
  if (!added) leave(added.error().message);
  if (session.size() == 0) leave(fmt::format("{} has no requests", options.input));

  if (session.size() == 1 && !options.json) {
    run_live(session, **engine);
  } else {
    run_many(session, **engine, options.json);
  }
  const Terminal terminal = terminal_of(STDERR_FILENO);
  const std::string summary = printable(session.summary());
  if (session.num_failed() > 0) leave(summary);
  write_err(dim(terminal, summary) + "\n");
}

}  // namespace

void add_generate(CLI::App& program) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command =
      program.add_subcommand("generate", "Answer prompts with the base model and with adapters");
  command->footer(
      "\nA line of --input is a JSON object with \"prompt\" (a text, or an array of token ids) or "
      "\"messages\",\n"
      "and optionally \"adapter\", \"tools\", \"chat_template_kwargs\" and any sampling option, "
      "spelled\n"
      "\"max_tokens\"; what it does not say, the command line does:\n"
      "  {\"messages\": [{\"role\": \"user\", \"content\": \"All users?\"}], \"adapter\": \"sql\", "
      "\"temperature\": 0}\n"
      "A line that is no such object stops the command before it starts. A request that the engine "
      "refuses,\n"
      "say for its length, is answered with an error; the others run, and the exit status is 1.\n\n"
      "Examples:\n"
      "  braid generate model --prompt \"Once upon a time\" --temperature 0\n"
      "  braid generate model --lora sql=adapters/sql --adapter base --adapter sql --chat \"All "
      "users?\"\n"
      "  braid generate model --lora a=x --lora b=y --input requests.jsonl --json > answers.jsonl");
  add_generate_options(*command, *options);
  command->callback([=] { run_generate(*options); });
}

}  // namespace braid::apps

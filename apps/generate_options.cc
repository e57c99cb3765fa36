#include "apps/generate_options.h"

#include <algorithm>
#include <type_traits>

#include "base/json.h"
#include "base/result.h"
#include "text/utf8.h"

namespace braid::apps {
namespace {

constexpr const char* kSampling = "Sampling (defaults are those of the model)";

// An option that sets a field of sampling_from_json.
template <class T>
void add_field(CLI::App& command, GenerateOptions& options, const std::string& key,
               const std::string& type, const std::string& help) {
  std::string flag = "--" + key;
  std::replace(flag.begin(), flag.end(), '_', '-');
  CLI::Option* option = command.add_option_function<T>(
      flag, [&options, key](const T& value) { options.sampling[key] = value; }, help);
  option->type_name(type)->group(kSampling);
  if constexpr (std::is_same_v<T, std::vector<int32_t>>) option->delimiter(',');
  option->allow_extra_args(false);  // what follows may be MODEL
}

// "42=-100,7=1.5" as the JSON that the lines of --input have.
void set_logit_bias(Json& sampling, const std::vector<std::string>& entries) {
  Json bias = Json::object();
  for (const std::string& entry : entries) {
    const size_t at = entry.find('=');
    auto value = parse_json(at == entry.npos ? "" : std::string_view(entry).substr(at + 1));
    if (!value || !value->is_number())
      throw CLI::ValidationError("--logit-bias",
                                 entry + " is not ID=BIAS; write for example 42=-100");
    bias[entry.substr(0, at)] = *value;
  }
  sampling["logit_bias"] = bias;
}

void add_prompt_options(CLI::App& command, GenerateOptions& options) {
  const char* group = "Prompts";
  command.add_option("--prompt", options.prompts, "Text to continue; may be given many times")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--chat", options.chats,
                  "A user's message, put through the chat template; may be given many times")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--system", options.system, "System message for --chat")
      ->type_name("TEXT")
      ->group(group);
  command
      .add_option("--chat-template-kwargs", options.template_options,
                  "Variables of the chat template, as {\"enable_thinking\": false, \"tools\": "
                  "[...]}")
      ->type_name("JSON")
      ->group(group);
  command.add_option("--input", options.input, "Requests as JSON lines, see below; - reads stdin")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--adapter", options.adapters,
                  "Who answers --prompt and --chat: a name given with --lora, or base; many are "
                  "answered side by side")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->group(group);
}

void add_sampling_options(CLI::App& command, GenerateOptions& options) {
  const auto number = [&](const char* key, const char* help) {
    add_field<double>(command, options, key, "NUMBER", help);
  };
  const auto integer = [&](const char* key, const char* help) {
    add_field<int32_t>(command, options, key, "N", help);
  };
  integer("max_tokens", "Longest reply [128]");
  integer("min_tokens", "No end before that many");
  number("temperature", "0 always picks the most likely token");
  integer("top_k", "Keep the k most likely tokens; 0 keeps all");
  number("top_p", "Keep the most likely tokens up to this probability, in (0, 1]");
  number("min_p", "Drop tokens less likely than this share of the best, in [0, 1]");
  number("repetition_penalty", "Above 1 discourages tokens of prompt and reply");
  number("presence_penalty", "On tokens of the reply, in [-2, 2]");
  number("frequency_penalty", "For each time a token is in the reply, in [-2, 2]");
  add_field<uint64_t>(command, options, "seed", "N", "The same seed gives the same reply [0]");
  add_field<std::vector<std::string>>(command, options, "stop", "TEXT",
                                      "End the reply before this text; may be given many times");
  add_field<std::vector<int32_t>>(command, options, "stop_token_ids", "ID",
                                  "End the reply with one of these tokens; commas between");
  command
      .add_option_function<std::vector<std::string>>(
          "--logit-bias",
          [&options](const std::vector<std::string>& entries) {
            set_logit_bias(options.sampling, entries);
          },
          "Add to a token's logit, in [-100, 100]; commas between")
      ->type_name("ID=BIAS")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group(kSampling);
  command
      .add_flag_function(
          "--ignore-eos", [&options](int64_t) { options.sampling["ignore_eos"] = true; },
          "Go on past the end token")
      ->group(kSampling);
  integer("logprobs", "Log probability of each token, and that many alternatives, 0 to 20");
  integer("prompt_logprobs", "The same for the prompt");
}

}  // namespace

void add_generate_options(CLI::App& command, GenerateOptions& options) {
  add_engine_options(command, options.engine);
  add_prompt_options(command, options);
  add_sampling_options(command, options);
  command.add_flag("--json", options.json, "One JSON object an answer instead of text");
}

Status check_usage(const GenerateOptions& options) {
  const bool has_words = !options.prompts.empty() || !options.chats.empty();
  const auto wrong = [](const char* message) {
    return fail(ErrorCode::kInvalidArgument, "{}", message);
  };
  if (!has_words && options.input.empty())
    return wrong("nothing to do; give --prompt TEXT, --chat TEXT or --input FILE");
  if (!has_words && !options.adapters.empty())
    return wrong("--adapter goes with --prompt and --chat; a line of --input has \"adapter\"");
  if (!options.system.empty() && options.chats.empty())
    return wrong("--system goes with --chat; a line of --input has \"messages\"");
  if (options.template_options != "{}" && options.chats.empty() && options.input.empty())
    return wrong("--chat-template-kwargs goes with --chat and with messages of --input");
  for (const auto* texts : {&options.prompts, &options.chats}) {
    for (const std::string& text : *texts) {
      if (text::find_broken_utf8(text) != text.npos)
        return fail(ErrorCode::kInvalidArgument, "\"{}\" is not UTF-8", text);
    }
  }
  if (text::find_broken_utf8(options.system) != options.system.npos)
    return wrong("--system is not UTF-8");
  return {};
}

}  // namespace braid::apps

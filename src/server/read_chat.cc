// POST /v1/chat/completions, as the OpenAI API and vLLM have it.

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "server/generation_request.h"
#include "server/json_text.h"
#include "server/request_fields.h"

namespace braid::server {
namespace {

// Templates build control tokens out of roles, so that only names may be one.
bool is_role(const std::string& role) {
  return !role.empty() && role.size() <= 32 &&
         std::ranges::all_of(role, [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

// A list of {"type": "text", "text"} becomes one string: templates know no other.
void join_parts(JsonFields& fields, Json& content, size_t index) {
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const auto type = part.is_object() ? part.find("type") : part.end();
    const auto part_text = part.is_object() ? part.find("text") : part.end();
    const bool is_text =
        part.is_string() || (part.is_object() && part_text != part.end() &&
                             part_text->is_string() && (type == part.end() || *type == "text"));
    if (!is_text) {
      fields.complain("messages",
                      fmt::format("part {} of the content of message {} is not "
                                  "{{\"type\": \"text\", \"text\"}}, the one kind supported",
                                  i, index));
      return;
    }
    if (i > 0) text += '\n';
    text += part.is_string() ? part.get_ref<const std::string&>()
                             : part_text->get_ref<const std::string&>();
  }
  content = std::move(text);
}

// The arguments of a call are JSON in a string on the wire, and what templates want is the JSON.
void read_arguments(Json& message) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    const auto arguments = call["function"].find("arguments");
    if (arguments == call["function"].end() || !arguments->is_string()) continue;
    if (auto parsed = parse_json(arguments->get_ref<const std::string&>());
        parsed && parsed->is_object())
      *arguments = std::move(*parsed);
  }
}

void check_messages(JsonFields& fields, Json& messages) {
  if (!messages.is_array() || messages.empty()) {
    fields.complain_of("messages", messages, "an array of at least one message");
    return;
  }
  for (size_t i = 0; i < messages.size() && !fields.error(); ++i) {
    Json& message = messages[i];
    std::string role;
    if (!message.is_object() || !message.contains("role") || !read_value(message["role"], role) ||
        !is_role(role)) {
      fields.complain("messages", fmt::format("message {} needs a \"role\" such as \"system\", "
                                              "\"user\", \"assistant\" or \"tool\"",
                                              i));
      return;
    }
    const auto content = message.find("content");
    if (content == message.end()) {
      message["content"] = nullptr;
    } else if (content->is_array()) {
      join_parts(fields, *content, i);
    } else if (!content->is_string() && !content->is_null()) {
      fields.complain("messages", fmt::format("the content of message {} is {}, it must be a "
                                              "string or an array of text parts",
                                              i, shown(*content)));
    }
    read_arguments(message);
  }
}

// What goes to the chat template beside the messages.
Json template_options(JsonFields& fields) {
  Json options = Json::object();
  if (const Json* variables = fields.find("chat_template_kwargs")) {
    if (variables->is_object()) {
      options = *variables;
    } else {
      fields.complain_of("chat_template_kwargs", *variables, "an object");
    }
  }
  bool adds_prompt = true, continues = false;
  fields.read_bool("add_generation_prompt", adds_prompt);
  fields.read_bool("continue_final_message", continues);
  options["add_generation_prompt"] = adds_prompt && !continues;
  if (continues) options["continue_final_message"] = true;
  const Json* choice = fields.find("tool_choice");
  if (choice != nullptr && *choice != "auto" && *choice != "none")
    fields.complain_of("tool_choice", *choice, "\"auto\" or \"none\"");
  if (const Json* tools = fields.find("tools");
      tools != nullptr && !(choice != nullptr && *choice == "none")) {
    if (tools->is_array()) {
      if (!tools->empty()) options["tools"] = *tools;
    } else {
      fields.complain_of("tools", *tools, "an array");
    }
  }
  if (const Json* documents = fields.find("documents")) options["documents"] = *documents;
  return options;
}

void read_logprobs(JsonFields& fields, GenerationRequest& request, SamplingParams& sampling) {
  fields.read_bool("logprobs", request.has_logprobs);
  int32_t top = 0;
  fields.read_integer("top_logprobs", top);
  if (request.has_logprobs) sampling.logprobs = top;
  if (!request.has_logprobs && top != 0)
    fields.complain("top_logprobs", "top_logprobs goes with \"logprobs\": true");
  if (fields.find("prompt_logprobs") != nullptr) {
    fields.read("prompt_logprobs", sampling.prompt_logprobs, "an integer from 0 to 20");
    request.has_prompt_logprobs = true;
  }
}

}  // namespace

ApiResult<GenerationRequest> read_chat_request(const Json& body, const TextModel& model,
                                               const RequestDefaults& defaults) {
  JsonFields fields(body);
  GenerationRequest request;
  GenerationRequest::Prompt shared = {.sampling = defaults.sampling};
  read_common(fields, request, shared);
  std::optional<int32_t> max_tokens;
  fields.read("max_tokens", max_tokens, "an integer");
  fields.read("max_completion_tokens", max_tokens, "an integer");
  read_logprobs(fields, request, shared.sampling);
  refuse_field(fields, "echo", "echo belongs to /v1/completions");
  refuse_field(fields, "functions", "functions are an old form of tools; use tools");
  refuse_field(fields, "audio", "only text is supported");
  refuse_field(fields, "chat_template", "a chat template of the request's own is not supported");
  check_choices(fields, shared.n, defaults);

  const Json options = template_options(fields);
  const Json* given = fields.find("messages");
  if (given == nullptr) fields.complain("messages", "messages is missing; give an array of them");
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  Json messages = *given;
  check_messages(fields, messages);
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());

  auto tokens = model.apply_chat_template(json_text(messages), json_text(options));
  if (!tokens) return tl::unexpected<ApiError>(to_api_error(tokens.error(), "messages"));
  // All that fits, unless the request says less.
  const auto room = model.max_context() - static_cast<int64_t>(tokens->size());
  shared.sampling.max_tokens =
      max_tokens.value_or(static_cast<int32_t>(std::max<int64_t>(room, 1)));
  request.prompts.push_back({.tokens = std::move(*tokens)});
  spread(shared, request);
  return request;
}

}  // namespace braid::server

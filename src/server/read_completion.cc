// POST /v1/completions, as the OpenAI API and vLLM have it.

#include <fmt/format.h>

#include "base/json.h"
#include "server/generation_request.h"
#include "server/request_fields.h"
#include "server/sampling_fields.h"

namespace braid::server {
namespace {

using Prompt = GenerationRequest::Prompt;

// A string, a list of strings, a list of token ids, a list of such lists.
void read_prompts(JsonFields& fields, const TextModel& model, bool add_special_tokens,
                  GenerationRequest& request) {
  const Json* value = fields.find("prompt");
  if (value == nullptr) {
    fields.complain("prompt", "prompt is missing; give a string, token ids, or a list of either");
    return;
  }
  const auto add = [&](const Json& one) {
    Prompt& prompt = request.prompts.emplace_back();
    if (read_value(one, prompt.text)) {
      auto tokens = model.tokenize(prompt.text, add_special_tokens);
      if (!tokens) {
        fields.complain("prompt", tokens.error().message);
        return;
      }
      prompt.tokens = std::move(*tokens);
    } else if (!read_value(one, prompt.tokens)) {
      fields.complain_of("prompt", one, "a string, token ids, or a list of either");
    }
    if (prompt.tokens.empty())
      fields.complain("prompt", "a prompt is empty, it must have at least one token");
  };
  const bool is_list = value->is_array() && (value->empty() || !value->front().is_number());
  if (!is_list) {
    add(*value);
    return;
  }
  if (value->empty()) fields.complain("prompt", "prompt is an empty list");
  for (const Json& one : *value) {
    if (fields.error()) return;
    add(one);
  }
}

}  // namespace

ApiResult<GenerationRequest> read_completion_request(const Json& body, const TextModel& model,
                                                     const RequestDefaults& defaults) {
  JsonFields fields(body);
  GenerationRequest request;
  Prompt shared = {.sampling = defaults.sampling};
  read_common(fields, request, shared);

  fields.read_integer("max_tokens", shared.sampling.max_tokens);
  fields.read_bool("echo", request.echo);
  bool add_special_tokens = true;
  fields.read_bool("add_special_tokens", add_special_tokens);
  if (shared.sampling.max_tokens == 0 && request.echo) {
    request.drops_reply = true;
    shared.sampling.max_tokens = 1;
  }
  const Json* logprobs = fields.find("logprobs");
  if (logprobs != nullptr && !(logprobs->is_boolean() && !logprobs->get<bool>())) {
    if (logprobs->is_boolean()) {
      shared.sampling.logprobs = 1;
    } else {
      fields.read("logprobs", shared.sampling.logprobs, "an integer from 0 to 20");
    }
    request.has_logprobs = true;
    if (request.echo) shared.sampling.prompt_logprobs = shared.sampling.logprobs;
  }
  if (fields.find("prompt_logprobs") != nullptr) {
    if (request.echo && request.has_logprobs)
      fields.complain("prompt_logprobs", "prompt_logprobs cannot be had beside echo with logprobs");
    fields.read("prompt_logprobs", shared.sampling.prompt_logprobs, "an integer from 0 to 20");
    request.has_prompt_logprobs = true;
  }
  refuse_field(fields, "suffix", "text in front of a suffix is not supported");
  refuse_field(fields, "prompt_embeds", "prompts as embeddings are not supported");
  int32_t best_of = shared.n;
  fields.read_integer("best_of", best_of);
  if (best_of != shared.n && best_of != 1) {
    fields.complain("best_of",
                    fmt::format("best_of is {}, it must be 1 or as large as n", best_of));
  }
  check_choices(fields, shared.n, defaults);
  if (!fields.error()) read_prompts(fields, model, add_special_tokens, request);
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  spread(shared, request);
  return request;
}

}  // namespace braid::server

// POST /generate, as SGLang has it: one prompt or a batch of them, each with its own parameters.

#include <fmt/format.h>

#include "base/json.h"
#include "server/generation_request.h"
#include "server/request_fields.h"
#include "server/sampling_fields.h"

namespace braid::server {
namespace {

using Prompt = GenerationRequest::Prompt;

constexpr int32_t kDefaultMaxTokens = 128;

// "text" (a string or several) or "input_ids" (a list of ids or several).
void read_prompts(JsonFields& fields, const TextModel& model, GenerationRequest& request) {
  const Json* text = fields.find("text");
  const Json* ids = fields.find("input_ids");
  if ((text == nullptr) == (ids == nullptr)) {
    fields.complain("text", "give either text or input_ids");
    return;
  }
  const auto add_text = [&](const Json& one) {
    Prompt& prompt = request.prompts.emplace_back();
    if (!read_value(one, prompt.text)) {
      fields.complain_of("text", one, "a string or a list of strings");
      return;
    }
    auto tokens = model.tokenize(prompt.text, true);
    if (!tokens) return fields.complain("text", tokens.error().message);
    prompt.tokens = std::move(*tokens);
  };
  const auto add_ids = [&](const Json& one) {
    if (!read_value(one, request.prompts.emplace_back().tokens))
      fields.complain_of("input_ids", one, "a list of token ids or a list of such lists");
  };
  if (text != nullptr) {
    request.is_batch = text->is_array();
    if (!request.is_batch) add_text(*text);
  } else {
    request.is_batch = ids->is_array() && !ids->empty() && ids->front().is_array();
    if (!request.is_batch) add_ids(*ids);
  }
  if (request.is_batch) {
    for (const Json& one : text != nullptr ? *text : *ids) {
      if (fields.error()) return;
      text != nullptr ? add_text(one) : add_ids(one);
    }
  }
  for (const Prompt& prompt : request.prompts) {
    if (prompt.tokens.empty()) fields.complain("text", "a prompt is empty");
  }
  if (request.prompts.empty()) fields.complain("text", "the list of prompts is empty");
}

void read_sampling_params(JsonFields& fields, const Json& given, Prompt& prompt,
                          GenerationRequest& request) {
  JsonFields inner(given, "sampling_params.");
  prompt.sampling.max_tokens = kDefaultMaxTokens;
  inner.read_integer("max_new_tokens", prompt.sampling.max_tokens);
  if (prompt.sampling.max_tokens == 0) {  // for the log probabilities of a prompt
    request.drops_reply = true;
    prompt.sampling.max_tokens = 1;
  }
  inner.read_integer("min_new_tokens", prompt.sampling.min_tokens);
  inner.read_integer("n", prompt.n);
  if (prompt.n < 1) inner.complain("n", "sampling_params.n must be at least 1");
  read_sampling(inner, prompt.sampling, prompt.has_seed);
  if (const Json* seed = inner.find("sampling_seed"); seed != nullptr) {
    inner.read("sampling_seed", prompt.sampling.seed, "an integer that is not negative");
    prompt.has_seed = true;
  }
  inner.read_bool("no_stop_trim", request.include_stop_string);
  if (inner.error()) fields.complain(inner.error()->param, inner.error()->message);
}

// A field that is one value for all prompts or a list of one each: calls set(prompt index, value).
template <class Set>
void read_each(JsonFields& fields, std::string_view key, const GenerationRequest& request,
               const Set& set) {
  const Json* value = fields.find(key);
  if (value == nullptr) return;
  const size_t num_prompts = request.prompts.size();
  if (!value->is_array()) {
    for (size_t i = 0; i < num_prompts; ++i) set(i, *value);
    return;
  }
  if (value->size() != num_prompts) {
    fields.complain(
        key, fmt::format("{} is a list of {} for {} prompts", key, value->size(), num_prompts));
    return;
  }
  for (size_t i = 0; i < num_prompts; ++i) set(i, (*value)[i]);
}

void read_logprobs(JsonFields& fields, GenerationRequest& request) {
  bool wanted = false;
  read_each(fields, "return_logprob", request, [&](size_t, const Json& value) {
    bool one = false;
    if (!read_value(value, one)) fields.complain_of("return_logprob", value, "true or false");
    wanted = wanted || one;
  });
  int32_t top = 0;
  read_each(fields, "top_logprobs_num", request, [&](size_t, const Json& value) {
    int32_t one = 0;
    if (!read_value(value, one)) fields.complain_of("top_logprobs_num", value, "an integer");
    top = std::max(top, one);
  });
  read_each(fields, "logprob_start_len", request, [&](size_t, const Json& value) {
    if (!read_value(value, request.logprob_start))
      fields.complain_of("logprob_start_len", value, "an integer");
  });
  fields.read_bool("return_text_in_logprobs", request.return_text_in_logprobs);
  if (!wanted) return;
  request.has_logprobs = true;
  for (Prompt& prompt : request.prompts) {
    prompt.sampling.logprobs = top;
    if (request.logprob_start >= 0) prompt.sampling.prompt_logprobs = top;
  }
}

}  // namespace

ApiResult<GenerationRequest> read_generate_request(const Json& body, const TextModel& model,
                                                   const RequestDefaults& defaults) {
  JsonFields fields(body);
  GenerationRequest request;
  fields.read_string("model", request.model);
  fields.read_bool("stream", request.stream);
  fields.read_integer("priority", request.priority);
  if (const Json* rid = fields.find("rid"); rid != nullptr && rid->is_string())
    request.client_id = rid->get<std::string>();
  refuse_field(fields, "input_embeds", "prompts as embeddings are not supported");
  refuse_field(fields, "image_data", "only text is supported");
  for (const char* key : {"text", "input_ids"}) {
    const Json* list = fields.find(key);
    const bool is_batch =
        list != nullptr && list->is_array() && !list->empty() && !list->front().is_number();
    if (is_batch && list->size() > static_cast<size_t>(defaults.max_choices)) {
      fields.complain(key, fmt::format("{} prompts are more than {}, which is the limit of one "
                                       "request",
                                       list->size(), defaults.max_choices));
    }
  }
  if (!fields.error()) read_prompts(fields, model, request);
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());

  for (Prompt& prompt : request.prompts) {
    prompt.sampling = defaults.sampling;
    prompt.sampling.max_tokens = kDefaultMaxTokens;
  }
  read_each(fields, "sampling_params", request, [&](size_t i, const Json& value) {
    read_sampling_params(fields, value, request.prompts[i], request);
  });
  read_each(fields, "lora_path", request, [&](size_t i, const Json& value) {
    if (value.is_null()) {
      request.prompts[i].lora = "";
    } else if (!read_value(value, request.prompts[i].lora)) {
      fields.complain_of("lora_path", value, "a string, null, or a list of these");
    }
  });
  read_logprobs(fields, request);
  int64_t num_choices = 0;
  for (const Prompt& prompt : request.prompts) num_choices += prompt.n;
  if (num_choices > defaults.max_choices) {
    fields.complain("sampling_params", fmt::format("{} samples are more than {}, which is the "
                                                   "limit of one request",
                                                   num_choices, defaults.max_choices));
  }
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  if (request.prompts.front().n > 1) request.is_batch = true;
  return request;
}

}  // namespace braid::server

#include "server/request_fields.h"

#include <fmt/format.h>

#include "base/json.h"
#include "server/sampling_fields.h"

namespace braid::server {

void read_common(JsonFields& fields, GenerationRequest& request,
                 GenerationRequest::Prompt& shared) {
  fields.read_string("model", request.model);
  fields.read("lora_path", shared.lora, "a string or null");
  // TensorRT-LLM's way to say the same.
  if (const Json* lora = fields.find("lora_request")) {
    JsonFields inner(*lora, "lora_request.");
    inner.read("lora_name", shared.lora, "a string");
    if (inner.error()) fields.complain("lora_request", inner.error()->message);
  }
  fields.read_bool("stream", request.stream);
  if (const Json* options = fields.find("stream_options")) {
    JsonFields inner(*options, "stream_options.");
    inner.read_bool("include_usage", request.include_usage);
    inner.read_bool("continuous_usage_stats", request.include_usage_always);
    if (inner.error()) fields.complain("stream_options", inner.error()->message);
  }
  fields.read_integer("n", shared.n);
  if (shared.n < 1) fields.complain("n", fmt::format("n is {}, it must be at least 1", shared.n));
  fields.read_integer("priority", request.priority);
  fields.read_bool("return_token_ids", request.return_token_ids);
  fields.read_bool("return_cached_tokens_details", request.return_cached_details);
  fields.read_bool("include_stop_str_in_output", request.include_stop_string);
  fields.read_bool("no_stop_trim", request.include_stop_string);
  fields.read_string("rid", request.client_id);
  read_sampling(fields, shared.sampling, shared.has_seed);
  refuse_field(fields, "use_beam_search", "beam search is not supported");
}

void refuse_field(JsonFields& fields, std::string_view key, std::string_view why) {
  const Json* value = fields.find(key);
  if (value == nullptr || *value == false || *value == "" ||
      (value->is_structured() && value->empty()))
    return;
  fields.complain(key, fmt::format("{}: {}", key, why));
}

void check_choices(JsonFields& fields, int32_t n, const RequestDefaults& defaults) {
  size_t num_prompts = 1;
  if (const Json* prompt = fields.find("prompt");
      prompt != nullptr && prompt->is_array() && !prompt->empty() && !prompt->front().is_number())
    num_prompts = prompt->size();
  if (num_prompts * static_cast<size_t>(n) > static_cast<size_t>(defaults.max_choices)) {
    fields.complain("n", fmt::format("{} prompts with n = {} are more than {} choices, which is "
                                     "the limit of one request",
                                     num_prompts, n, defaults.max_choices));
  }
}

void spread(const GenerationRequest::Prompt& shared, GenerationRequest& request) {
  for (GenerationRequest::Prompt& prompt : request.prompts) {
    prompt.lora = shared.lora;
    prompt.sampling = shared.sampling;
    prompt.has_seed = shared.has_seed;
    prompt.n = shared.n;
  }
}

}  // namespace braid::server

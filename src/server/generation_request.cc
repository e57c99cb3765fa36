#include "server/generation_request.h"

#include <fmt/format.h>

#include "base/json.h"
#include "server/sampling_fields.h"

namespace braid::server {

int32_t GenerationRequest::num_choices() const {
  int32_t sum = 0;
  for (const Prompt& prompt : prompts) sum += prompt.n;
  return sum;
}

std::vector<Request> engine_requests(const GenerationRequest& request,
                                     const std::vector<AdapterId>& adapter_of_prompt,
                                     uint64_t random_seed) {
  std::vector<Request> out;
  out.reserve(static_cast<size_t>(request.num_choices()));
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const GenerationRequest::Prompt& prompt = request.prompts[i];
    for (int32_t sample = 0; sample < prompt.n; ++sample) {
      SamplingParams sampling = prompt.sampling;
      sampling.seed = prompt.has_seed
                          ? seed_of_sample(sampling.seed, sample)
                          : seed_of_sample(random_seed, static_cast<int32_t>(out.size()));
      out.push_back({.prompt = prompt.tokens,
                     .adapter = adapter_of_prompt[i],
                     .sampling = std::move(sampling),
                     .priority = request.priority});
    }
  }
  return out;
}

ApiResult<Json> parse_body(const std::string& body) {
  auto json = parse_json(body, {.max_bytes = body.size()});  // the connection has a limit
  if (!json) {
    return tl::unexpected<ApiError>(
        {.message = fmt::format("the body is no JSON that is accepted: {}", json.error().message)});
  }
  return std::move(*json);
}

}  // namespace braid::server

#include "server/reply_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/json.h"
#include "server/token_names.h"

namespace braid::server {

ReplyFormat::ReplyFormat(const GenerationRequest& request) : request_(request) {
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    for (int32_t sample = 0; sample < request.prompts[i].n; ++sample)
      prompt_of_choice_.push_back(static_cast<int32_t>(i));
  }
  usage_of_choice_.resize(prompt_of_choice_.size());
}

void ReplyFormat::count(int32_t choice, const Event& event) {
  usage_of_choice_[choice] = {
      .prompt_tokens = event.prompt_tokens,
      .cached_tokens = event.cached_tokens,
      .completion_tokens = request_.drops_reply ? 0 : event.completion_tokens};
}

Usage ReplyFormat::usage() const {
  Usage sum;
  int32_t last_prompt = -1;
  for (size_t i = 0; i < usage_of_choice_.size(); ++i) {
    sum.completion_tokens += usage_of_choice_[i].completion_tokens;
    if (prompt_of_choice_[i] == last_prompt) continue;
    last_prompt = prompt_of_choice_[i];
    sum.prompt_tokens += usage_of_choice_[i].prompt_tokens;
    sum.cached_tokens += usage_of_choice_[i].cached_tokens;
  }
  return sum;
}

std::string sse(std::string_view json_line) { return fmt::format("data: {}\n\n", json_line); }

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

std::string_view finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  BRAID_UNREACHABLE(static_cast<int>(reason));
}

double json_logprob(float logprob) {
  constexpr float kLeast = -9999.0f;  // as vLLM writes minus infinity
  return std::isnan(logprob) ? kLeast : std::max(logprob, kLeast);
}

Json stop_reason(const Event& event, const SamplingParams& sampling) {
  if (!event.finished || event.reason != FinishReason::kStop) return nullptr;
  if (!event.matched_stop.empty()) return event.matched_stop;
  if (!event.tokens.empty() && std::ranges::count(sampling.stop_token_ids, event.tokens.back()) > 0)
    return event.tokens.back();
  return nullptr;
}

std::string shown_text(const Event& event, const GenerationRequest& request) {
  if (request.drops_reply) return "";
  return request.include_stop_string ? event.text + event.matched_stop : event.text;
}

Json prompt_logprobs_json(const Event& event, TokenNames& names) {
  Json list = Json::array({nullptr});
  for (const TokenLogprob& entry : event.prompt_logprobs) {
    Json tokens = Json::object();
    const auto add = [&](int32_t token, float logprob, int32_t rank) {
      tokens[std::to_string(token)] = {{"logprob", json_logprob(logprob)},
                                       {"rank", rank},
                                       {"decoded_token", names.of(token).text}};
    };
    int32_t rank = 0;
    for (const auto& [token, logprob] : entry.top) add(token, logprob, ++rank);
    add(entry.token, entry.logprob, entry.rank);
    list.push_back(std::move(tokens));
  }
  return list;
}

}  // namespace braid::server

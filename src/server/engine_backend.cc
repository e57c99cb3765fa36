#include "server/engine_backend.h"

#include <utility>

namespace braid::server {
namespace {

Event own(const TokenEvent& event) {
  return {.tag = event.tag,
          .tokens = {event.tokens.begin(), event.tokens.end()},
          .text = std::string(event.text),
          .logprobs = {event.logprobs.begin(), event.logprobs.end()},
          .prompt_logprobs = {event.prompt_logprobs.begin(), event.prompt_logprobs.end()},
          .finished = event.finished,
          .reason = event.reason,
          .matched_stop = std::string(event.matched_stop),
          .error = std::string(event.error),
          .error_code = event.error_code,
          .prompt_tokens = event.prompt_tokens,
          .cached_tokens = event.cached_tokens,
          .completion_tokens = event.completion_tokens,
          .times = event.times};
}

}  // namespace

OnStep StepRelay::on_step() {
  return [this](std::span<const TokenEvent> events) {
    std::vector<Event> owned;
    owned.reserve(events.size());
    for (const TokenEvent& event : events) owned.push_back(own(event));
    const std::lock_guard lock(mutex_);
    if (on_events_) on_events_(std::move(owned));
  };
}

void StepRelay::set(Backend::OnEvents on_events) {
  const std::lock_guard lock(mutex_);
  on_events_ = std::move(on_events);
}

Result<std::vector<int32_t>> EngineBackend::tokenize(std::string_view text,
                                                     bool add_special_tokens) const {
  return engine_.tokenize(text, add_special_tokens);
}

Result<std::string> EngineBackend::detokenize(std::span<const int32_t> tokens,
                                              bool skip_special_tokens) const {
  return engine_.detokenize(tokens, skip_special_tokens);
}

Result<std::vector<int32_t>> EngineBackend::apply_chat_template(
    std::string_view messages_json, std::string_view options_json) const {
  return engine_.apply_chat_template(messages_json, options_json);
}

std::string EngineBackend::token_bytes(int32_t token) const {
  return std::string(engine_.token_bytes(token));
}

}  // namespace braid::server

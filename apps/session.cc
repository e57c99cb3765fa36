#include "apps/session.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

namespace braid::apps {

Status Session::add(Answer answer) {
  if (!answer.adapter.empty()) {
    const auto id = engine_.find_adapter(answer.adapter);
    if (!id) {
      return fail(ErrorCode::kNotFound, "there is no adapter \"{}\"; name it with --lora {}=PATH",
                  answer.adapter, answer.adapter);
    }
    answer.request.adapter = *id;
  }
  answers_.push_back({.answer = std::move(answer)});
  return {};
}

void Session::run(const OnAnswer& on_answer, const OnText& on_text) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  InFlight in_flight(engine_);
  size_t submitted = 0, told = 0;
  while (told < answers_.size()) {
    const int64_t finished = in_flight.num_finished();
    while (submitted < answers_.size() && try_submit(in_flight, answers_[submitted], on_text))
      ++submitted;
    if (is_finished(answers_[told])) {
      on_answer(answers_[told++].answer);
    } else {
      in_flight.wait_for_more_than(finished);
    }
  }
  seconds_ = std::chrono::duration<double>(Clock::now() - begin).count();
  if (thrown_) std::rethrow_exception(thrown_);
}

// False when the queue is full: to be tried again when a request has finished.
bool Session::try_submit(InFlight& in_flight, Entry& entry, const OnText& on_text) {
  const auto submit = [&] {
    return in_flight.submit(entry.answer.request, [this, &entry, &on_text](const TokenEvent& e) {
      take(entry, e, on_text);
    });
  };
  auto status = submit();
  if (!status && status.error().code == ErrorCode::kResourceExhausted) {
    if (in_flight.num_finished() < in_flight.num_submitted()) return false;
    // Events come a moment before their places in the queue are free.
    engine_.wait_until_idle();
    status = submit();
  }
  if (!status) {
    Answer& answer = entry.answer;
    answer.reason = FinishReason::kError;
    answer.error = answer.place.empty() ? status.error().message
                                        : answer.place + ": " + status.error().message;
    const std::lock_guard lock(mutex_);
    entry.finished = true;
  }
  return true;
}

void Session::take(Entry& entry, const TokenEvent& event, const OnText& on_text) {
  Answer& answer = entry.answer;
  answer.text += event.text;
  answer.tokens.insert(answer.tokens.end(), event.tokens.begin(), event.tokens.end());
  answer.logprobs.insert(answer.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
  answer.prompt_logprobs.insert(answer.prompt_logprobs.end(), event.prompt_logprobs.begin(),
                                event.prompt_logprobs.end());
  answer.prompt_tokens = event.prompt_tokens;
  answer.cached_tokens = event.cached_tokens;
  if (on_text && !event.text.empty()) {
    try {
      on_text(event.text);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!thrown_) thrown_ = std::current_exception();
      engine_.cancel(event.request);
    }
  }
  if (!event.finished) return;
  answer.reason = event.reason;
  if (event.reason == FinishReason::kError)
    answer.error = answer.place.empty() ? std::string(event.error)
                                        : fmt::format("{}: {}", answer.place, event.error);
  const std::lock_guard lock(mutex_);
  entry.finished = true;
}

bool Session::is_finished(const Entry& entry) {
  const std::lock_guard lock(mutex_);
  return entry.finished;
}

int64_t Session::num_failed() const {
  int64_t failed = 0;
  for (const Entry& entry : answers_) failed += entry.answer.reason == FinishReason::kError;
  return failed;
}

std::string Session::summary() const {
  int64_t prompt = 0, cached = 0, generated = 0;
  const std::string* first_error = nullptr;
  for (const auto& [answer, finished] : answers_) {
    prompt += answer.prompt_tokens;
    cached += answer.cached_tokens;
    generated += static_cast<int64_t>(answer.tokens.size());
    if (first_error == nullptr && !answer.error.empty()) first_error = &answer.error;
  }
  std::string text = fmt::format(
      "{} request{}, {} prompt tokens ({} cached), {} generated in {:.2f} s: {:.1f} tokens/s",
      answers_.size(), answers_.size() == 1 ? "" : "s", prompt, cached, generated, seconds_,
      static_cast<double>(generated) / seconds_);
  if (first_error != nullptr)
    text += fmt::format("; {} failed, the first: {}", num_failed(), *first_error);
  return text;
}

}  // namespace braid::apps

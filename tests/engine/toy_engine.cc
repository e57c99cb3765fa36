#include "tests/engine/toy_engine.h"

#include <fmt/format.h>

#include <bit>

#include "base/check.h"
#include "model/cpu_runner.h"

namespace braid::test {
namespace {

bool are_same(const std::vector<TokenLogprob>& a, const std::vector<TokenLogprob>& b) {
  const auto bits = [](float x) { return std::bit_cast<uint32_t>(x); };
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].token != b[i].token || bits(a[i].logprob) != bits(b[i].logprob) ||
        a[i].rank != b[i].rank || a[i].top.size() != b[i].top.size())
      return false;
    for (size_t j = 0; j < a[i].top.size(); ++j) {
      if (a[i].top[j].first != b[i].top[j].first ||
          bits(a[i].top[j].second) != bits(b[i].top[j].second))
        return false;
    }
  }
  return true;
}

}  // namespace

std::pair<OnTokens, size_t> Replies::add() {
  const std::lock_guard lock(mutex_);
  replies_.push_back(std::make_unique<Reply>());
  Reply* reply = replies_.back().get();
  const auto on_tokens = [this, reply](const TokenEvent& event) {
    const std::lock_guard inner(mutex_);
    reply->tokens.insert(reply->tokens.end(), event.tokens.begin(), event.tokens.end());
    reply->text += event.text;
    reply->logprobs.insert(reply->logprobs.end(), event.logprobs.begin(), event.logprobs.end());
    reply->prompt_logprobs.insert(reply->prompt_logprobs.end(), event.prompt_logprobs.begin(),
                                  event.prompt_logprobs.end());
    reply->cached_tokens = event.cached_tokens;
    ++reply->num_events;
    if (event.finished) {
      ++reply->num_last_events;
      reply->reason = event.reason;
      reply->matched_stop = event.matched_stop;
      reply->error = event.error;
    }
    changed_.notify_all();
  };
  return {on_tokens, replies_.size() - 1};
}

void Replies::wait_for_events(size_t index, int32_t num_events) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return replies_[index]->num_events >= num_events; });
}

Reply Replies::at(size_t index) const {
  const std::lock_guard lock(mutex_);
  return *replies_[index];
}

size_t Replies::size() const {
  const std::lock_guard lock(mutex_);
  return replies_.size();
}

std::unique_ptr<EngineThread> make_toy_engine(const ToyOptions& options) {
  auto model = std::make_unique<ToyModel>();
  model->on_forward = options.on_forward;
  model->poisoned_token = options.poisoned_token;
  return std::make_unique<EngineThread>(
      nullptr,
      std::make_unique<CpuRunner>(std::move(model), ops::Context{},
                                  ToyModel::kv_shape(options.num_blocks, options.block_size)),
      options.has_text ? TokenTextFactory([](bool) { return make_toy_text(); })
                       : TokenTextFactory(),
      EngineThreadOptions{
          .scheduler = {.max_running = options.max_running,
                        .max_batch_tokens = options.max_batch_tokens,
                        .block_size = options.block_size,
                        .num_blocks = options.num_blocks,
                        .prefix_caching = options.prefix_caching,
                        .max_running_per_adapter = options.max_running_per_adapter},
          .max_adapters = options.max_adapters,
          .max_queued_requests = options.max_queued_requests,
          .max_context = options.num_blocks * options.block_size,
          .eos_tokens = options.eos_tokens,
          .vocabulary = options.has_text ? toy_vocabulary(options.eos_tokens) : nullptr,
          .on_step = options.on_step});
}

std::vector<Reply> run_all(EngineThread& engine, const std::vector<ToyRequest>& requests) {
  Replies replies;
  for (const auto& [request, adapter] : requests) {
    auto [on_tokens, index] = replies.add();
    Request with_id = request;
    if (adapter) with_id.adapter = AdapterId{static_cast<int32_t>(adapter->hash.low)};
    const auto id = engine.submit(with_id, adapter, on_tokens);
    BRAID_CHECK(id.has_value());
  }
  engine.wait_until_idle();
  std::vector<Reply> result;
  for (size_t i = 0; i < requests.size(); ++i) result.push_back(replies.at(i));
  return result;
}

Reply run_alone(const ToyRequest& request, const ToyOptions& options) {
  ToyOptions alone = options;
  alone.max_batch_tokens = 4096;
  alone.num_blocks = 1024;
  alone.prefix_caching = false;
  return run_all(*make_toy_engine(alone), {request}).front();
}

std::string why_different(const Reply& got, const Reply& want) {
  if (got.tokens != want.tokens)
    return fmt::format("tokens {} instead of {}", fmt::join(got.tokens, " "),
                       fmt::join(want.tokens, " "));
  if (got.text != want.text) return fmt::format("text '{}' instead of '{}'", got.text, want.text);
  if (!are_same(got.logprobs, want.logprobs)) return "other log probabilities";
  if (!are_same(got.prompt_logprobs, want.prompt_logprobs)) return "other prompt log probabilities";
  if (got.reason != want.reason || got.error != want.error) return "another end: " + got.error;
  if (got.num_last_events != 1) return fmt::format("{} last events", got.num_last_events);
  return {};
}

}  // namespace braid::test

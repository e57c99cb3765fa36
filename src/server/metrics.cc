#include "server/metrics.h"

#include <algorithm>

namespace braid::server {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr std::array kSeconds = {0.001, 0.002, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08,
                                 0.1,   0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,
                                 10.0,  20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
constexpr std::array kTokens = {1.0,   2.0,    5.0,    10.0,   20.0,    50.0,    100.0,   200.0,
                                500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0, 100000.0};
constexpr std::array kSamples = {1.0, 2.0, 5.0, 10.0, 20.0};

}  // namespace

void Histogram::add(double value) {
  const auto place = std::ranges::lower_bound(bounds_, value);
  if (place != bounds_.end()) ++counts_[static_cast<size_t>(place - bounds_.begin())];
  ++total_;
  sum_ += value;
}

ServedCounts::ServedCounts()
    : queue_seconds(kSeconds),
      first_token_seconds(kSeconds),
      inter_token_seconds(kSeconds),
      total_seconds(kSeconds),
      prefill_seconds(kSeconds),
      decode_seconds(kSeconds),
      token_seconds(kSeconds),
      prompt_sizes(kTokens),
      reply_sizes(kTokens) {}

Metrics::Metrics(const ServerConfig& config, const Backend& backend)
    : model_names_(config.model_names),
      vllm_(config.vllm_metrics),
      sglang_(config.sglang_metrics),
      max_adapters_(static_cast<size_t>(config.max_metric_adapters)),
      backend_(backend),
      params_n_(kSamples),
      params_max_tokens_(kTokens) {}

// Names come from clients, so that there must be an end to them.
ServedCounts& Metrics::counts_of(std::string_view adapter) {
  const auto found = of_adapter_.find(adapter);
  if (found != of_adapter_.end()) return found->second;
  const bool has_room = adapter.empty() || of_adapter_.size() < max_adapters_;
  return of_adapter_[has_room ? std::string(adapter) : "other"];
}

void Metrics::count(const GenerationRequest& request) {
  for (const auto& prompt : request.prompts) {
    params_n_.add(prompt.n);
    params_max_tokens_.add(prompt.sampling.max_tokens);
  }
}

void Metrics::count(const Event& event, std::string_view adapter,
                    std::chrono::steady_clock::time_point previous_token) {
  const auto add = [&](ServedCounts& to) {
    to.generated_tokens += static_cast<int64_t>(event.tokens.size());
    const RequestTimes& times = event.times;
    const bool has_token = !event.tokens.empty();
    const auto seconds = [](auto from, auto until) { return Seconds(until - from).count(); };
    if (has_token && event.completion_tokens == 1) {
      to.prompt_tokens += event.prompt_tokens;
      to.cached_tokens += event.cached_tokens;
      to.queue_seconds.add(seconds(times.queued, times.started));
      to.first_token_seconds.add(seconds(times.queued, times.first_token));
      to.prefill_seconds.add(seconds(times.started, times.first_token));
    } else if (has_token) {
      to.inter_token_seconds.add(seconds(previous_token, times.last_token));
    }
    if (!event.finished) return;
    ++to.requests;
    ++to.finished_by_reason[static_cast<size_t>(event.reason)];
    if (event.completion_tokens == 0) return;
    const double decode = seconds(times.first_token, times.last_token);
    to.total_seconds.add(seconds(times.queued, times.last_token));
    to.decode_seconds.add(decode);
    if (event.completion_tokens > 1) to.token_seconds.add(decode / (event.completion_tokens - 1));
    to.prompt_sizes.add(event.prompt_tokens);
    to.reply_sizes.add(event.completion_tokens);
  };
  add(all_);
  add(counts_of(adapter));
}

void Metrics::count_abandoned(std::string_view adapter) {
  for (ServedCounts* to : {&all_, &counts_of(adapter)}) {
    ++to->requests;
    ++to->finished_by_reason[static_cast<size_t>(FinishReason::kCancelled)];
  }
}

void Metrics::count(const ExchangeRecord& record) {
  ++http_requests_[{record.route.empty() ? "none" : record.route, record.status}];
}

}  // namespace braid::server

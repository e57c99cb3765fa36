#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/backend.h"
#include "server/generation_request.h"
#include "server/http/message.h"
#include "server/server_config.h"

namespace braid::server {

// Counts of values by size, for Prometheus.
class Histogram {
 public:
  // Upper ends, rising; static storage.
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds), counts_(bounds.size()) {}
  void add(double value);

  std::span<const double> bounds() const { return bounds_; }
  std::span<const int64_t> counts() const { return counts_; }  // of each bound alone
  int64_t total() const { return total_; }
  double sum() const { return sum_; }

 private:
  std::span<const double> bounds_;
  std::vector<int64_t> counts_;
  int64_t total_ = 0;
  double sum_ = 0.0;
};

// What was counted of one adapter, the base model, or all.
struct ServedCounts {
  ServedCounts();

  int64_t requests = 0;                         // choices that had their last event
  std::array<int64_t, 4> finished_by_reason{};  // by FinishReason
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t generated_tokens = 0;
  Histogram queue_seconds, first_token_seconds, inter_token_seconds, total_seconds, prefill_seconds,
      decode_seconds, token_seconds, prompt_sizes, reply_sizes;
};

// What the server counts, and its text for Prometheus. On the IO thread only.
class Metrics {
 public:
  Metrics(const ServerConfig& config, const Backend& backend);

  void count(const GenerationRequest& request);
  // The adapter's name, "" is the base model; when its choice's token before this one came, if any.
  void count(const Event& event, std::string_view adapter,
             std::chrono::steady_clock::time_point previous_token);
  // A choice whose client left before its last event.
  void count_abandoned(std::string_view adapter);
  void count(const ExchangeRecord& record);

  // Text format 0.0.4.
  std::string text(int32_t num_connections) const;

 private:
  friend class MetricsText;
  ServedCounts& counts_of(std::string_view adapter);

  std::vector<std::string> model_names_;
  bool vllm_;
  bool sglang_;
  size_t max_adapters_;
  const Backend& backend_;
  ServedCounts all_;
  std::map<std::string, ServedCounts, std::less<>> of_adapter_;       // "": the base model
  std::map<std::pair<std::string, int32_t>, int64_t> http_requests_;  // route, status
  Histogram params_n_, params_max_tokens_;
};

}  // namespace braid::server

#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine_thread.h"
#include "tests/engine/toy_model.h"

namespace braid::test {

// All that a request's callback was told.
struct Reply {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<TokenLogprob> logprobs;
  std::vector<TokenLogprob> prompt_logprobs;
  FinishReason reason = FinishReason::kStop;
  std::string matched_stop;
  std::string error;
  int32_t cached_tokens = 0;
  int32_t num_events = 0;
  int32_t num_last_events = 0;
};

// Takes events of many requests from the engine's thread.
class Replies {
 public:
  // A callback that fills a new reply, and the reply's index.
  std::pair<OnTokens, size_t> add();

  // Waits until the reply has that many events.
  void wait_for_events(size_t index, int32_t num_events);

  Reply at(size_t index) const;
  size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Reply>> replies_;
};

struct ToyOptions {
  int32_t max_running = 16;
  int32_t max_batch_tokens = 512;
  int32_t block_size = 4;
  int32_t num_blocks = 256;
  bool prefix_caching = true;
  int32_t max_adapters = 8;
  int32_t max_running_per_adapter = 0;
  int32_t max_queued_requests = 1024;
  bool has_text = true;
  std::vector<int32_t> eos_tokens = {};
  std::function<void(const ForwardBatch&)> on_forward = {};
  int32_t poisoned_token = -1;
  OnStep on_step = {};
};

std::unique_ptr<EngineThread> make_toy_engine(const ToyOptions& options);

struct ToyRequest {
  Request request;
  std::shared_ptr<const Adapter> adapter;
};

// Submits all, each under the id of its toy adapter's number, waits until idle, and returns the
// replies in order.
std::vector<Reply> run_all(EngineThread& engine, const std::vector<ToyRequest>& requests);

// The reply that a request gives alone on a fresh engine with everything in one step and no cache.
Reply run_alone(const ToyRequest& request, const ToyOptions& options = {});

// Empty when tokens, text and every log probability are the same bits, else what differs.
std::string why_different(const Reply& got, const Reply& want);

}  // namespace braid::test

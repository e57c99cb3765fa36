#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "braid/engine.h"

namespace braid::apps {

// Requests given to an engine whose callbacks refer to what the caller owns. However the scope is
// left, those that still run are cancelled and their last events waited for: no callback comes
// after it.
//
//     InFlight in_flight(engine);
//     if (auto status = in_flight.submit(request, on_tokens); !status) return status;
//     in_flight.wait_for_all();
//
// From one thread; the engine's thread only counts.
class InFlight {
 public:
  explicit InFlight(Engine& engine) : engine_(engine) {}
  ~InFlight();
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  // Errors  those of Engine::submit
  Status submit(Request request, OnTokens on_tokens);

  // Requests that were submitted, and those whose last event has come.
  int64_t num_submitted() const { return static_cast<int64_t>(ids_.size()); }
  int64_t num_finished() const;

  // Returns when more than `num_seen` requests have finished.
  void wait_for_more_than(int64_t num_seen);
  void wait_for_all();

 private:
  Engine& engine_;
  std::vector<RequestId> ids_;
  mutable std::mutex mutex_;
  std::condition_variable has_finished_;
  int64_t num_finished_ = 0;
};

}  // namespace braid::apps

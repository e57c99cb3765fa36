#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "braid/engine.h"
#include "engine/adapter_residency.h"
#include "engine/request_state.h"
#include "engine/scheduler.h"
#include "engine/step_events.h"
#include "model/runner.h"

namespace braid {

namespace cpu {
class ThreadPool;
}

// Runs requests step by step: schedule, forward, sample, commit, events. Everything here happens on
// the thread that calls it; EngineThread gives it one.
class EngineCore {
 public:
  // The runner must outlive the core, and so must the pool, which picks the tokens of a step; null
  // to do that on the calling thread.
  EngineCore(Runner& runner, cpu::ThreadPool* pool, const SchedulerOptions& options,
             int32_t max_adapters, OnStep on_step = {});
  ~EngineCore();

  // A request whose adapter is loading is parked until the load has ended.
  void add(std::unique_ptr<RequestState> request);

  // Adapters have changed: requests whose load has ended go on, and slots let go of adapters that
  // nobody else holds.
  void look_at_adapters();

  // The request's last event has reason kCancelled. Unknown ids are ignored.
  void cancel(RequestId id);
  void cancel_all();

  // Runs one step. What goes wrong inside ends the running requests with kError; the ones that wait
  // stay. Does nothing when there is no request.
  void step();

  // Hands the events since the last call to on_step, those of requests without a callback.
  void deliver_events() { events_.deliver(on_step_); }

  // There is something to compute.
  void flush_prefix_cache() { scheduler_->flush_prefix_cache(); }

  bool has_work() const { return !scheduler_->is_empty(); }
  int32_t num_never_started() const {
    return scheduler_->num_never_started() + static_cast<int32_t>(parked_.size());
  }

  // Requests that had their last event so far.
  int64_t num_finished() const { return num_finished_; }
  EngineStats stats() const;
  const AdapterResidency& adapters() const { return *adapters_; }

 private:
  // A row of logits and what is made of it.
  struct Row {
    RequestState* request = nullptr;
    int32_t prompt_token = -1;  // its log probability; -1: the row gives the next token
    Sampler::Sample sample;
    std::string error;
  };

  void start(std::unique_ptr<RequestState> request);
  void run_step();
  void list_rows(std::span<const ScheduledChunk> chunks);
  void compute_rows(std::span<const StepRow> results);
  void compute_row(Row& row, std::span<float> logits);
  void take_token(RequestState& request, Sampler::Sample& sample);
  void finish(RequestState& request, FinishReason reason, std::string_view error = {});
  void send_last(RequestState& request, FinishReason reason, std::string_view error,
                 std::optional<ErrorCode> error_code = {});
  void send(RequestState& request, TokenEvent event);
  void start_over(std::string_view error);
  EngineStats totals() const;

  Runner& runner_;
  cpu::ThreadPool* pool_;
  SchedulerOptions options_;
  int32_t max_adapters_;
  OnStep on_step_;
  StepEvents events_;
  std::unique_ptr<AdapterResidency> adapters_;
  std::unique_ptr<Scheduler> scheduler_;               // points to adapters_
  std::vector<std::unique_ptr<RequestState>> parked_;  // their adapters are loading
  ForwardBatch batch_;
  std::vector<Row> rows_;
  std::vector<Pick> picks_;            // of rows_
  std::vector<RequestState*> broken_;  // their callback threw in this step
  EngineStats totals_;  // counts that only rise; scheduler_ and adapters_ have theirs
  int64_t num_finished_ = 0;
  RequestTimes::Time step_end_;
};

}  // namespace braid

#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "adapter/adapter_lease.h"
#include "base/result.h"
#include "braid/engine.h"
#include "cpu/thread_pool.h"
#include "engine/engine_core.h"
#include "engine/grammar_cache.h"
#include "engine/token_text.h"
#include "model/runner.h"

namespace braid {

struct EngineThreadOptions {
  SchedulerOptions scheduler;
  int32_t max_adapters = 64;
  int32_t max_queued_requests = 1024;
  int32_t max_context = 0;  // prompt + reply, tokens; fits into the cache
  std::vector<int32_t> eos_tokens;
  std::shared_ptr<const grammar::Vocabulary> vocabulary;  // for grammars; null: they are refused
  OnStep on_step;                                         // for requests without a callback
};

// An EngineCore on its own thread, and the mailbox in front of it. Members may be called from any
// thread, also from callbacks, but for wait_until_idle(), stop() and the destructor.
class EngineThread {
 public:
  // The runner may use the pool, which may be null.
  EngineThread(std::unique_ptr<cpu::ThreadPool> pool, std::unique_ptr<Runner> runner,
               TokenTextFactory make_text, EngineThreadOptions options);

  // stop()
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // See Engine::submit; without on_tokens, events go to options.on_step. `adapter` is the
  // default for the base model; request.adapter says whose share the request takes from.
  Result<RequestId> submit(Request request, AdapterLease adapter, OnTokens on_tokens);
  // See Engine::prepare_grammar.
  Status prepare_grammar(const OutputGrammar& grammar);
  void cancel(RequestId id);

  // A load that requests wait for has ended, or an adapter was let go of: its slot is emptied once
  // no request uses it.
  void adapters_changed();

  // Every request still there gets its last event, kCancelled, before it returns; submit() refuses
  // from here on. Not from a callback.
  void stop();

  // See Engine::flush_prefix_cache.
  void flush_prefix_cache();

  void wait_until_idle();
  EngineStats stats() const;

  // Contents of the adapter slots after the last step.
  std::vector<AdapterHash> hashes_in_slots() const;
  const Runner& runner() const { return *runner_; }
  // See Engine::time_operations.
  void time_operations(bool on) { runner_->time_operations(on); }
  int32_t max_context() const { return options_.max_context; }

 private:
  Status check(const Request& request) const;
  void run();

  const EngineThreadOptions options_;
  const TokenTextFactory make_text_;
  const std::unique_ptr<cpu::ThreadPool> pool_;
  const std::unique_ptr<Runner> runner_;
  const std::shared_ptr<AdapterCounters> base_counters_ = std::make_shared<AdapterCounters>();
  GrammarCache grammars_;
  EngineCore core_;  // touched by thread_ alone once it runs

  mutable std::mutex mutex_;
  std::condition_variable has_mail_;
  std::condition_variable is_idle_;
  // Under mutex_:
  std::vector<std::unique_ptr<RequestState>> arrivals_;
  std::vector<RequestId> cancels_;
  bool adapters_changed_ = false;
  bool flushes_prefixes_ = false;
  bool stops_ = false;
  int64_t next_id_ = 0;
  int64_t num_unfinished_ = 0;                // accepted, without their last event
  int32_t num_queued_ = 0;                    // accepted, never started
  EngineStats stats_;                         // after the last step
  std::vector<AdapterHash> hashes_in_slots_;  // likewise

  std::thread thread_;
};

}  // namespace braid

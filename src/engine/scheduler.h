#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "engine/adapter_residency.h"
#include "engine/request_state.h"
#include "kv/block_pool.h"
#include "kv/prefix_cache.h"

namespace braid {

struct SchedulerOptions {
  int32_t max_running = 64;        // requests at a time
  int32_t max_batch_tokens = 512;  // of one step
  int32_t block_size = 16;
  int32_t num_blocks = 0;
  bool prefix_caching = true;
};

// One request's part of a step: its tokens [num_computed, num_computed + num_tokens).
struct ScheduledChunk {
  RequestState* request = nullptr;
  int32_t num_tokens = 0;
  int32_t first_prompt_row = 0;  // of the chunk's tokens, those whose logits give the log
  int32_t num_prompt_rows = 0;   // probability of the prompt token after them
  bool samples = false;          // the chunk ends the known tokens: its last logits give the next
};

// Decides what the next step computes, and owns requests, KV blocks and adapter slots meanwhile.
//
// A step takes the next token of every decoding request, then prompt chunks of requests already
// running, then admits waiting ones in order of arrival while tokens, places, blocks and adapter
// slots last. A request is admitted when the blocks of all its tokens so far are there. When a
// decoding request finds no block, the youngest running request is preempted: it gives back
// everything, waits at its old place, and later recomputes prompt and reply (mostly prefix hits).
// The oldest request is never preempted and fits into the cache alone, so it always ends: no
// deadlock.
//
// A request whose adapter finds no slot lets others pass, base requests always and those of
// resident adapters for kMaxStepsPassed steps; then adapters behind it wait until it has a slot.
//
// Used by one thread at a time.
class Scheduler {
 public:
  static constexpr int64_t kMaxStepsPassed = 64;

  // Rows of prompt logits in one step: they bound the logits buffer.
  static constexpr int32_t kMaxPromptRows = 64;

  Scheduler(const SchedulerOptions& options, AdapterResidency& adapters);

  void add(std::unique_ptr<RequestState> request);

  // The next step; empty when nothing can run. Valid until the next call.
  std::span<const ScheduledChunk> schedule();

  // The chunk's keys and values are in the cache.
  void commit(const ScheduledChunk& chunk);

  // Takes a request out, running or waiting, and gives back what it holds.
  std::unique_ptr<RequestState> remove(RequestState* request);

  // Every request, as it is, for when the books may be wrong: nothing is given back in them, but
  // each request is as if it held nothing. The scheduler is not used again.
  struct Abandoned {
    std::deque<std::unique_ptr<RequestState>> running;
    std::deque<std::unique_ptr<RequestState>> waiting;
  };
  Abandoned abandon();

  // The request of that id, or null.
  RequestState* find(RequestId id) const;

  // In order of arrival.
  std::vector<RequestState*> running() const;
  std::vector<RequestState*> waiting() const;

  bool is_empty() const { return running_.empty() && waiting_.empty(); }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int32_t num_never_started() const { return num_never_started_; }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t num_cached_tokens() const { return num_cached_tokens_; }
  const BlockPool& pool() const { return pool_; }

 private:
  using Requests = std::deque<std::unique_ptr<RequestState>>;

  int32_t blocks_for(int32_t num_tokens) const;
  bool extend_for_decode(size_t index);
  void preempt_youngest();
  void admit_waiting();
  bool take_blocks(RequestState& request);
  void give_back(RequestState& request);
  void schedule_chunk(RequestState& request);
  static void insert_by_arrival(Requests& list, std::unique_ptr<RequestState> request);

  SchedulerOptions options_;
  AdapterResidency& adapters_;
  BlockPool pool_;
  PrefixCache prefix_cache_;
  Requests running_;  // by arrival
  Requests waiting_;  // by arrival
  std::vector<ScheduledChunk> chunks_;
  int32_t tokens_left_ = 0;       // of this step
  int32_t prompt_rows_left_ = 0;  // of this step
  int64_t step_ = 0;
  int32_t num_never_started_ = 0;
  int64_t num_preemptions_ = 0;
  int64_t num_cached_tokens_ = 0;
};

}  // namespace braid

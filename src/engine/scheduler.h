#pragma once

#include <cstdint>
#include <deque>
#include <map>
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
  int32_t max_running_per_adapter = 0;  // 0: no limit; the base has none
};

// One request's part of a step: its tokens [num_computed, num_computed + num_tokens).
struct ScheduledChunk {
  RequestState* request = nullptr;
  int32_t num_tokens = 0;
  bool is_decode = false;        // tokens of the reply; else of the prompt
  int32_t first_prompt_row = 0;  // of the chunk's tokens, those whose logits give the log
  int32_t num_prompt_rows = 0;   // probability of the prompt token after them
  bool samples = false;          // the chunk ends the known tokens: its last logits give the next
};

// Decides what the next step computes, and owns requests, KV blocks and adapter slots meanwhile.
//
// A step takes the next token of every decoding request, then prompt chunks of requests already
// running, oldest first, then admits waiting ones while tokens, places, blocks and adapter slots
// last. Chunks of replies stand in front: a chunk has tokens of the prompt or of the reply, also
// when a request computes both again, so that what computes a token does not depend on how often it
// was computed and on what else was in the step.
//
// Who is admitted next. Each adapter, and the base as one of them, has a virtual time: the tokens
// computed for it divided by its share. Of the highest priority that waits, the adapter with the
// least virtual time goes first, and of its requests the oldest; every kFairTurn-th admission does
// not look at priority, so that low ones get that part of the places. An adapter that has nothing
// to do does not save up: when it comes back it starts at the least virtual time of those that are
// busy. An adapter with max_running_per_adapter requests running is passed over.
//
// While an adapter waits for a slot, those that have one may get kMaxLead ahead of it in virtual
// time, with requests of higher priority kFairTurn times that; then they start no request until it
// has its slot. Base requests need none and pass always.
//
// A request is admitted when the blocks of all its tokens so far are there; whose turn it is and
// finds none is not passed by anybody, for small requests must not starve large ones. When a
// decoding request finds no block, the youngest running request is preempted: it gives back
// everything, waits again, and later recomputes prompt and reply (mostly prefix hits), of all
// replies kMaxRecomputedTokens in a step at most beside the one token a request.
//
// Nothing deadlocks: the oldest running request is never preempted and fits into the cache alone,
// so it always ends; a request that waits has an adapter whose virtual time stands still while that
// of all others grows, so that its turn comes; and blocks or a slot come by the end of those that
// run.
//
// Used by one thread at a time.
class Scheduler {
 public:
  static constexpr double kMaxLead = 64;  // tokens at a share of 1
  static constexpr int64_t kFairTurn = 8;

  // Rows of prompt logits in one step: they bound the logits buffer.
  static constexpr int32_t kMaxPromptRows = 64;

  // Tokens of replies in one step beyond max_running: they bound the sequences of a batch.
  static constexpr int32_t kMaxRecomputedTokens = 64;

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

  // Forgets the prefixes that no request holds.
  void flush_prefix_cache() { pool_.drop_cached(); }

  bool is_empty() const { return running_.empty() && num_waiting_ == 0; }
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  int32_t num_waiting() const { return num_waiting_; }
  int32_t num_never_started() const { return num_never_started_; }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t num_cached_tokens() const { return num_cached_tokens_; }
  const BlockPool& pool() const { return pool_; }

 private:
  using Requests = std::deque<std::unique_ptr<RequestState>>;

  // The requests of an adapter, or of the base.
  struct Queue {
    Requests waiting;  // by arrival
    int32_t num_running = 0;
    float share = 1.0f;
    double virtual_time = 0.0;

    bool is_idle() const { return waiting.empty() && num_running == 0; }
  };

  // The request of an adapter that may be admitted next. Sorted by who goes first.
  struct Candidate {
    RequestState* request = nullptr;
    int64_t priority = 0;
    double virtual_time = 0.0;
    bool needs_slot = false;  // its adapter is in none
  };

  int32_t blocks_for(int32_t num_tokens) const;
  bool extend_for_decode(size_t index);
  void preempt_youngest();
  void admit_waiting();
  std::vector<Candidate> candidates() const;
  static bool is_held_back(const Candidate& candidate, std::span<const Candidate> all);
  void wait(std::unique_ptr<RequestState> request);
  void start_running(RequestState& request);
  void stop_running(RequestState& request);
  void update_virtual_times();
  bool take_blocks(RequestState& request);
  void give_back(RequestState& request);
  void schedule_chunk(RequestState& request);
  static void insert_by_arrival(Requests& list, std::unique_ptr<RequestState> request);

  SchedulerOptions options_;
  AdapterResidency& adapters_;
  BlockPool pool_;
  PrefixCache prefix_cache_;
  Requests running_;                   // by arrival
  std::map<AdapterId, Queue> queues_;  // of adapters that are busy, or ahead of those that are
  int32_t num_waiting_ = 0;
  double virtual_now_ = 0.0;  // the least virtual time of busy queues; never falls
  int64_t num_admissions_ = 0;
  std::vector<ScheduledChunk> chunks_;
  int32_t tokens_left_ = 0;       // of this step
  int32_t prompt_rows_left_ = 0;  // of this step
  int32_t recomputed_left_ = 0;   // of this step
  int64_t step_ = 0;
  int32_t num_never_started_ = 0;
  int64_t num_preemptions_ = 0;
  int64_t num_cached_tokens_ = 0;
};

}  // namespace braid

#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "base/check.h"

namespace braid {

Scheduler::Scheduler(const SchedulerOptions& options, AdapterResidency& adapters)
    : options_(options),
      adapters_(adapters),
      pool_(options.num_blocks),
      prefix_cache_(pool_, options.block_size) {
  BRAID_CHECK_GE(options.max_running, 1);
  // Then the decodes of a step leave at least one token for a prompt.
  BRAID_CHECK_GE(options.max_batch_tokens, options.max_running);
}

int32_t Scheduler::blocks_for(int32_t num_tokens) const {
  return (num_tokens + options_.block_size - 1) / options_.block_size;
}

void Scheduler::insert_by_arrival(Requests& list, std::unique_ptr<RequestState> request) {
  const auto place = std::upper_bound(list.begin(), list.end(), request->id,
                                      [](RequestId id, const auto& r) { return id < r->id; });
  list.insert(place, std::move(request));
}

void Scheduler::add(std::unique_ptr<RequestState> request) {
  BRAID_CHECK_LE(blocks_for(request->num_prompt), pool_.num_blocks());
  if (!request->has_started) ++num_never_started_;
  wait(std::move(request));
}

void Scheduler::wait(std::unique_ptr<RequestState> request) {
  Queue& queue = queues_[request->adapter_id];
  if (queue.is_idle()) queue.virtual_time = std::max(queue.virtual_time, virtual_now_);
  queue.share = request->share;
  insert_by_arrival(queue.waiting, std::move(request));
  ++num_waiting_;
}

void Scheduler::update_virtual_times() {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [adapter, queue] : queues_) {
    if (!queue.is_idle()) least = std::min(least, queue.virtual_time);
  }
  if (std::isfinite(least)) virtual_now_ = std::max(virtual_now_, least);
  std::erase_if(queues_, [&](const auto& entry) {
    return entry.second.is_idle() && entry.second.virtual_time <= virtual_now_;
  });
}

Scheduler::Abandoned Scheduler::abandon() {
  Abandoned result = {.running = std::move(running_)};
  for (auto& [adapter, queue] : queues_) {
    for (auto& request : queue.waiting) insert_by_arrival(result.waiting, std::move(request));
  }
  queues_.clear();
  num_waiting_ = 0;
  for (auto* list : {&result.running, &result.waiting}) {
    for (const auto& request : *list) {
      request->forget_computed();
      request->adapter_slot = kNoAdapter;
      request->set_running(false);
    }
  }
  return result;
}

std::span<const ScheduledChunk> Scheduler::schedule() {
  ++step_;
  update_virtual_times();
  chunks_.clear();
  tokens_left_ = options_.max_batch_tokens;
  prompt_rows_left_ = kMaxPromptRows;
  recomputed_left_ = kMaxRecomputedTokens;
  const int64_t preemptions_before = num_preemptions_;

  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->num_remaining() != 1) continue;
    if (!extend_for_decode(i)) break;  // it was the youngest and went itself
    schedule_chunk(*running_[i]);
  }
  for (const auto& request : running_) {
    if (request->num_remaining() > 1) schedule_chunk(*request);
  }
  // After a preemption there is no block to spare: admitting would only preempt again.
  if (num_preemptions_ == preemptions_before) admit_waiting();
  // Nothing else to do than to wait for an adapter on its way to the device.
  while (chunks_.empty() && adapters_.wait_for_one()) admit_waiting();
  std::ranges::stable_partition(chunks_, &ScheduledChunk::is_decode);
  return chunks_;
}

bool Scheduler::extend_for_decode(size_t index) {
  RequestState* request = running_[index].get();
  while (static_cast<int32_t>(request->blocks.size()) < blocks_for(request->num_tokens())) {
    if (const auto block = pool_.allocate()) {
      request->blocks.push_back(*block);
      continue;
    }
    const bool is_youngest = index + 1 == running_.size();
    BRAID_CHECK(running_.size() > 1);  // submit() has checked that one request fits alone
    preempt_youngest();
    if (is_youngest) return false;
  }
  return true;
}

void Scheduler::preempt_youngest() {
  auto request = std::move(running_.back());
  running_.pop_back();
  stop_running(*request);
  ++num_preemptions_;
  wait(std::move(request));
}

void Scheduler::stop_running(RequestState& request) {
  give_back(request);
  request.set_running(false);
  --queues_.at(request.adapter_id).num_running;
}

std::vector<Scheduler::Candidate> Scheduler::candidates() const {
  const bool is_fair_turn = num_admissions_ % kFairTurn == kFairTurn - 1;
  const auto priority = [&](const RequestState& r) {
    return is_fair_turn ? 0 : int64_t{r.priority};
  };
  std::vector<Candidate> found;
  for (const auto& [adapter, queue] : queues_) {
    if (queue.waiting.empty()) continue;
    const int32_t limit = options_.max_running_per_adapter;
    if (adapter != AdapterId::kBase && limit > 0 && queue.num_running >= limit) continue;
    // The first of the largest: the oldest of the highest priority.
    RequestState& first = **std::ranges::max_element(
        queue.waiting, {}, [&](const auto& request) { return priority(*request); });
    found.push_back({.request = &first,
                     .priority = priority(first),
                     .virtual_time = queue.virtual_time,
                     .needs_slot = first.adapter && !adapters_.holds(first.adapter->hash)});
  }
  std::ranges::sort(found, {}, [](const Candidate& c) {
    return std::tuple(-c.priority, c.virtual_time, c.request->id);
  });
  return found;
}

bool Scheduler::is_held_back(const Candidate& candidate, std::span<const Candidate> all) {
  if (!candidate.request->adapter) return false;
  return std::ranges::any_of(all, [&](const Candidate& other) {
    const double lead = other.priority < candidate.priority ? kFairTurn * kMaxLead : kMaxLead;
    return other.needs_slot && candidate.virtual_time > other.virtual_time + lead;
  });
}

void Scheduler::admit_waiting() {
  bool is_admitted = true;
  while (is_admitted && num_running() < options_.max_running && tokens_left_ > 0) {
    is_admitted = false;
    const auto order = candidates();
    for (const Candidate& candidate : order) {
      RequestState& request = *candidate.request;
      if (is_held_back(candidate, order)) continue;
      if (request.adapter) {
        const auto slot = adapters_.acquire(request.adapter);
        if (!slot) continue;
        request.adapter_slot = *slot;
      }
      if (!take_blocks(request)) {
        give_back(request);
        return;
      }
      start_running(request);
      is_admitted = true;
      break;
    }
  }
}

void Scheduler::start_running(RequestState& request) {
  Queue& queue = queues_.at(request.adapter_id);
  const auto place =
      std::ranges::find_if(queue.waiting, [&](const auto& r) { return r.get() == &request; });
  auto admitted = std::move(*place);
  queue.waiting.erase(place);
  --num_waiting_;
  ++queue.num_running;
  ++num_admissions_;
  if (!request.has_started) {
    --num_never_started_;
    request.has_started = true;
    request.times.started = std::chrono::steady_clock::now();
  }
  request.set_running(true);
  insert_by_arrival(running_, std::move(admitted));
  schedule_chunk(request);
}

bool Scheduler::take_blocks(RequestState& request) {
  // Prompt log probabilities need the logits of every prompt token, and the last token's logits are
  // needed by everybody: neither comes out of the cache.
  if (options_.prefix_caching && !request.needs_prompt_logprobs()) {
    auto match = prefix_cache_.match(request.owner,
                                     std::span(request.tokens).first(request.tokens.size() - 1));
    request.blocks = std::move(match.blocks);
    request.last_node = match.last;
    request.num_registered = static_cast<int32_t>(request.blocks.size());
    request.num_computed = request.num_registered * options_.block_size;
  }
  const int32_t wanted =
      blocks_for(request.num_tokens()) - static_cast<int32_t>(request.blocks.size());
  // Beside others, leave each of them the block it may need next: else it would preempt at once.
  if (pool_.num_available() < wanted + num_running()) return false;
  for (int32_t i = 0; i < wanted; ++i) request.blocks.push_back(*pool_.allocate());
  num_cached_tokens_ += request.num_computed;
  request.counters->cached_tokens += request.num_computed;
  if (!request.has_started)
    request.num_cached_prompt = std::min(request.num_computed, request.num_prompt);
  return true;
}

void Scheduler::give_back(RequestState& request) {
  // Last block first, so that the prefix cache loses the ends of chains before their starts.
  for (auto block = request.blocks.rbegin(); block != request.blocks.rend(); ++block)
    pool_.release(*block);
  request.forget_computed();
  if (request.adapter_slot != kNoAdapter) adapters_.release(request.adapter_slot);
  request.adapter_slot = kNoAdapter;
}

void Scheduler::schedule_chunk(RequestState& request) {
  const int32_t begin = request.num_computed;
  int32_t num_tokens = std::min(request.num_remaining(), tokens_left_);
  ScheduledChunk chunk = {.request = &request, .is_decode = begin >= request.num_prompt};
  num_tokens =
      std::min(num_tokens, chunk.is_decode ? 1 + recomputed_left_ : request.num_prompt - begin);
  if (request.needs_prompt_logprobs()) {
    const auto done = static_cast<int32_t>(request.prompt_logprobs.size());
    // Tokens before `done` are recomputed after a preemption: their rows are known.
    num_tokens = std::min(num_tokens, std::max(done - begin, 0) + prompt_rows_left_);
    const int32_t first = std::max(begin, done);
    const int32_t end = std::min(begin + num_tokens, request.num_prompt - 1);
    chunk.first_prompt_row = first - begin;
    chunk.num_prompt_rows = std::max(end - first, 0);
    prompt_rows_left_ -= chunk.num_prompt_rows;
  }
  if (num_tokens <= 0) return;
  if (chunk.is_decode) recomputed_left_ -= num_tokens - 1;
  chunk.num_tokens = num_tokens;
  chunk.samples = num_tokens == request.num_remaining();
  tokens_left_ -= num_tokens;
  Queue& queue = queues_.at(request.adapter_id);
  queue.virtual_time += num_tokens / double{queue.share};
  chunks_.push_back(chunk);
}

void Scheduler::commit(const ScheduledChunk& chunk) {
  RequestState& request = *chunk.request;
  request.num_computed += chunk.num_tokens;
  if (!options_.prefix_caching) return;
  const int32_t size = options_.block_size;
  while ((request.num_registered + 1) * size <= request.num_computed) {
    int32_t& block = request.blocks[request.num_registered];
    const auto inserted = prefix_cache_.insert(
        request.owner, request.last_node,
        std::span<const int32_t>(request.tokens).subspan(request.num_registered * size, size),
        block);
    block = inserted.block;
    request.last_node = inserted.node;
    ++request.num_registered;
  }
}

std::unique_ptr<RequestState> Scheduler::remove(RequestState* request) {
  const bool is_running = request->is_running;
  Queue& queue = queues_.at(request->adapter_id);
  Requests& list = is_running ? running_ : queue.waiting;
  const auto found = std::ranges::find_if(list, [&](const auto& r) { return r.get() == request; });
  BRAID_CHECK(found != list.end());
  auto taken = std::move(*found);
  list.erase(found);
  if (is_running) {
    stop_running(*taken);
  } else {
    --num_waiting_;
  }
  if (!taken->has_started) --num_never_started_;
  return taken;
}

RequestState* Scheduler::find(RequestId id) const {
  for (const auto& request : running_) {
    if (request->id == id) return request.get();
  }
  for (const auto& [adapter, queue] : queues_) {
    for (const auto& request : queue.waiting) {
      if (request->id == id) return request.get();
    }
  }
  return nullptr;
}

std::vector<RequestState*> Scheduler::running() const {
  std::vector<RequestState*> all;
  for (const auto& request : running_) all.push_back(request.get());
  return all;
}

std::vector<RequestState*> Scheduler::waiting() const {
  std::vector<RequestState*> all;
  for (const auto& [adapter, queue] : queues_) {
    for (const auto& request : queue.waiting) all.push_back(request.get());
  }
  std::ranges::sort(all, {}, [](const RequestState* request) { return request->id; });
  return all;
}

}  // namespace braid

#include "engine/scheduler.h"

#include <algorithm>

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
  insert_by_arrival(waiting_, std::move(request));
}

Scheduler::Abandoned Scheduler::abandon() {
  Abandoned result = {.running = std::move(running_), .waiting = std::move(waiting_)};
  for (auto* list : {&result.running, &result.waiting}) {
    for (const auto& request : *list) {
      request->forget_computed();
      request->adapter_slot = kNoAdapter;
      request->waits_for_slot_since = -1;
      request->set_running(false);
    }
  }
  return result;
}

std::span<const ScheduledChunk> Scheduler::schedule() {
  ++step_;
  chunks_.clear();
  tokens_left_ = options_.max_batch_tokens;
  prompt_rows_left_ = kMaxPromptRows;
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
  request->set_running(false);
  give_back(*request);
  ++num_preemptions_;
  insert_by_arrival(waiting_, std::move(request));
}

void Scheduler::admit_waiting() {
  bool holds_adapters_back = false;
  for (size_t i = 0; i < waiting_.size();) {
    if (num_running() >= options_.max_running || tokens_left_ == 0) return;
    RequestState& request = *waiting_[i];
    if (request.adapter) {
      const auto slot = holds_adapters_back ? std::nullopt : adapters_.acquire(request.adapter);
      if (!slot) {
        if (request.waits_for_slot_since < 0) request.waits_for_slot_since = step_;
        if (step_ - request.waits_for_slot_since >= kMaxStepsPassed) holds_adapters_back = true;
        ++i;
        continue;
      }
      request.adapter_slot = *slot;
    }
    if (!take_blocks(request)) {
      give_back(request);
      return;  // whoever comes later waits behind it: small requests must not starve large ones
    }
    request.waits_for_slot_since = -1;
    auto admitted = std::move(waiting_[i]);
    waiting_.erase(waiting_.begin() + static_cast<int64_t>(i));
    if (!admitted->has_started) {
      --num_never_started_;
      admitted->has_started = true;
      admitted->times.started = std::chrono::steady_clock::now();
    }
    admitted->set_running(true);
    insert_by_arrival(running_, std::move(admitted));
    schedule_chunk(request);
  }
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
  ScheduledChunk chunk = {.request = &request};
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
  chunk.num_tokens = num_tokens;
  chunk.samples = num_tokens == request.num_remaining();
  tokens_left_ -= num_tokens;
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
  for (Requests* list : {&running_, &waiting_}) {
    const auto found =
        std::ranges::find_if(*list, [&](const auto& r) { return r.get() == request; });
    if (found == list->end()) continue;
    auto taken = std::move(*found);
    list->erase(found);
    give_back(*taken);
    if (!taken->has_started) --num_never_started_;
    return taken;
  }
  BRAID_CHECK(request == nullptr);  // every other pointer is ours
  return nullptr;
}

RequestState* Scheduler::find(RequestId id) const {
  for (const Requests* list : {&running_, &waiting_}) {
    for (const auto& request : *list) {
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
  for (const auto& request : waiting_) all.push_back(request.get());
  return all;
}

}  // namespace braid

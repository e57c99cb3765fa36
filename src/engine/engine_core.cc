#include "engine/engine_core.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "adapter/adapter_pool.h"
#include "base/check.h"
#include "cpu/thread_pool.h"
#include "engine/batch_builder.h"
#include "engine/logprobs.h"

namespace braid {

EngineCore::EngineCore(Runner& runner, cpu::ThreadPool* pool, const SchedulerOptions& options,
                       int32_t max_adapters, OnStep on_step)
    : runner_(runner),
      pool_(pool),
      options_(options),
      max_adapters_(max_adapters),
      on_step_(std::move(on_step)),
      adapters_(std::make_unique<AdapterResidency>(max_adapters, runner.config().num_hidden_layers,
                                                   runner.adapter_pool())),
      scheduler_(std::make_unique<Scheduler>(options, *adapters_)) {}

EngineCore::~EngineCore() = default;

void EngineCore::add(std::unique_ptr<RequestState> request) {
  if (request->lease.is_loading()) {
    parked_.push_back(std::move(request));
  } else {
    start(std::move(request));
  }
}

void EngineCore::start(std::unique_ptr<RequestState> request) {
  auto adapter = request->lease.adapter();
  if (!adapter) {
    const Error& error = adapter.error();
    send_last(*request, FinishReason::kError, error.message, error.code);
    return;
  }
  request->set_adapter(std::move(*adapter));
  scheduler_->add(std::move(request));
}

void EngineCore::look_at_adapters() {
  for (auto& request : std::exchange(parked_, {})) add(std::move(request));
  adapters_->drop_removed();
}

void EngineCore::cancel(RequestId id) {
  if (RequestState* request = scheduler_->find(id)) {
    finish(*request, FinishReason::kCancelled);
    return;
  }
  const auto found = std::ranges::find_if(parked_, [&](const auto& r) { return r->id == id; });
  if (found == parked_.end()) return;
  const auto taken = std::move(*found);
  parked_.erase(found);
  send_last(*taken, FinishReason::kCancelled, {});
}

void EngineCore::cancel_all() {
  for (RequestState* request : scheduler_->running()) finish(*request, FinishReason::kCancelled);
  for (RequestState* request : scheduler_->waiting()) finish(*request, FinishReason::kCancelled);
  for (const auto& request : std::exchange(parked_, {}))
    send_last(*request, FinishReason::kCancelled, {});
}

void EngineCore::step() {
  std::string error;
  try {
    run_step();
    return;
  } catch (const std::exception& e) {
    error = e.what();
  }
  start_over(error.empty() ? "unknown error" : error);
}

void EngineCore::start_over(std::string_view error) {
  // After a failed step nothing is known of the cache's contents or of the books: waiting requests
  // move to new ones.
  broken_.clear();
  totals_ = totals();
  auto abandoned = scheduler_->abandon();
  adapters_ = std::make_unique<AdapterResidency>(max_adapters_, runner_.config().num_hidden_layers,
                                                 runner_.adapter_pool());
  scheduler_ = std::make_unique<Scheduler>(options_, *adapters_);
  for (auto& request : abandoned.waiting) scheduler_->add(std::move(request));
  for (auto& request : abandoned.running) send_last(*request, FinishReason::kError, error);
}

void EngineCore::run_step() {
  const auto start = std::chrono::steady_clock::now();
  const auto chunks = scheduler_->schedule();
  if (chunks.empty()) {
    BRAID_CHECK(scheduler_->is_empty());
    return;
  }
  build_batch(chunks, options_.block_size, batch_);
  const bool has_adapters = std::ranges::any_of(batch_.adapter_slot_of_token,
                                                [](int32_t slot) { return slot != kNoAdapter; });
  list_rows(chunks);
  const auto results =
      runner_.forward(batch_, has_adapters ? &adapters_->slots() : nullptr, picks_);
  ++totals_.steps;
  compute_rows(results);
  step_end_ = std::chrono::steady_clock::now();
  totals_.step_seconds += std::chrono::duration<double>(step_end_ - start).count();
  totals_.last_step_tokens = batch_.num_tokens();

  for (const ScheduledChunk& chunk : chunks) {
    const int32_t begin = chunk.request->num_computed;
    const int32_t prompt_tokens =
        std::clamp(chunk.request->num_prompt - begin, 0, chunk.num_tokens);
    totals_.prompt_tokens += prompt_tokens;
    chunk.request->counters->prompt_tokens += prompt_tokens;
    scheduler_->commit(chunk);
  }
  const RequestState* ended = nullptr;  // by an earlier row; a request's rows stand together
  for (Row& row : rows_) {
    if (row.request == ended) continue;
    if (!row.error.empty()) {
      ended = row.request;
      finish(*row.request, FinishReason::kError, row.error);
    } else if (row.prompt_token >= 0) {
      row.request->prompt_logprobs.push_back(std::move(*row.sample.logprob));
    } else {
      take_token(*row.request, row.sample);
    }
  }
  for (RequestState* request : std::exchange(broken_, {}))
    finish(*request, FinishReason::kError, "the request's callback threw an exception");
}

void EngineCore::list_rows(std::span<const ScheduledChunk> chunks) {
  rows_.clear();
  picks_.clear();
  for (const ScheduledChunk& chunk : chunks) {
    RequestState* request = chunk.request;
    const int32_t first = request->num_computed + chunk.first_prompt_row;
    for (int32_t i = 0; i < chunk.num_prompt_rows; ++i) {
      rows_.push_back({.request = request, .prompt_token = request->tokens[first + i + 1]});
      picks_.push_back({});
    }
    if (!chunk.samples) continue;
    rows_.push_back({.request = request});
    picks_.push_back(
        request->sampler.pick_on_device(request->num_tokens(), request->num_generated()));
  }
  BRAID_CHECK_EQ(rows_.size(), batch_.logits_token.size());
}

void EngineCore::compute_rows(std::span<const StepRow> results) {
  BRAID_CHECK_EQ(results.size(), rows_.size());
  const auto body = [&](int64_t index, int32_t) {
    const StepRow& result = results[static_cast<size_t>(index)];
    if (result.token >= 0) {
      rows_[index].sample.token = result.token;
    } else {
      compute_row(rows_[index], result.logits);
    }
  };
  // Rows do not touch each other, so who computes which one changes nothing.
  const auto num_rows = static_cast<int64_t>(rows_.size());
  const bool all_picked =
      std::ranges::all_of(results, [](const StepRow& result) { return result.token >= 0; });
  if (pool_ != nullptr && !all_picked) {
    pool_->parallel_for(num_rows, body);
  } else {
    for (int64_t index = 0; index < num_rows; ++index) body(index, 0);
  }
}

void EngineCore::compute_row(Row& row, std::span<float> logits) {
  RequestState& request = *row.request;
  if (row.prompt_token >= 0) {
    row.error = why_unusable(logits, row.request->num_computed);
    if (row.error.empty())
      row.sample.logprob =
          compute_logprob(logits, row.prompt_token, *request.sampling.prompt_logprobs);
    return;
  }
  auto sample = request.sampler.sample(logits, request.num_tokens(), request.num_generated());
  if (sample) {
    row.sample = std::move(*sample);
  } else {
    row.error = std::move(sample.error().message);
  }
}

void EngineCore::take_token(RequestState& request, Sampler::Sample& sample) {
  const SamplingParams& sampling = request.sampling;
  const int32_t token = sample.token;
  request.tokens.push_back(token);
  request.sampler.count(token);
  ++totals_.generated_tokens;
  ++request.counters->generated_tokens;
  if (request.num_generated() == 1) request.times.first_token = step_end_;
  request.times.last_token = step_end_;

  const int32_t num_generated = request.num_generated();
  const bool may_stop = num_generated >= sampling.min_tokens;
  bool is_finished = may_stop && std::ranges::count(request.end_tokens, token) > 0;
  TokenEvent event = {.tokens = std::span(&token, 1), .reason = FinishReason::kStop};
  std::string text;
  const auto add_text = [&](std::string_view piece, bool stops) {
    auto found = request.stops.push(piece, stops);
    text += found.text;
    if (found.stop_index) event.matched_stop = sampling.stop[*found.stop_index];
    return found.stop_index.has_value();
  };
  bool is_cut = false;  // by a stop string
  if (request.text && !is_finished) is_cut = add_text(request.text->push(token), may_stop);
  is_finished = is_finished || is_cut;
  if (request.matcher && !is_finished) {
    // The sampler took it out of the mask, unless it ends the reply.
    BRAID_CHECK(request.matcher->push(token));
    is_finished = request.matcher->is_over();
  }
  if (!is_finished && num_generated == sampling.max_tokens) {
    is_finished = true;
    event.reason = FinishReason::kLength;
  }
  if (is_finished && !is_cut && request.text) {
    is_cut = add_text(request.text->flush(), may_stop);
    if (is_cut) event.reason = FinishReason::kStop;
    if (!is_cut) text += request.stops.flush();
  }
  event.text = text;
  event.finished = is_finished;
  if (sample.logprob) event.logprobs = std::span(&*sample.logprob, 1);
  send(request, event);
  if (is_finished) scheduler_->remove(&request);
}

void EngineCore::finish(RequestState& request, FinishReason reason, std::string_view error) {
  // Taken out first: whatever the callback does, the request is gone.
  const auto taken = scheduler_->remove(&request);
  send_last(*taken, reason, error);
}

void EngineCore::send_last(RequestState& request, FinishReason reason, std::string_view error,
                           std::optional<ErrorCode> error_code) {
  std::string text;
  if (request.text && request.has_sent_event) {
    text = request.stops.push(request.text->flush(), false).text + request.stops.flush();
  }
  send(
      request,
      {.text = text, .finished = true, .reason = reason, .error = error, .error_code = error_code});
}

void EngineCore::send(RequestState& request, TokenEvent event) {
  event.request = request.id;
  event.tag = request.tag;
  event.times = request.times;
  event.prompt_tokens = request.num_prompt;
  event.cached_tokens = request.num_cached_prompt;
  event.completion_tokens = request.num_generated();
  if (!request.has_sent_event && !request.needs_prompt_logprobs())
    event.prompt_logprobs = request.prompt_logprobs;
  request.has_sent_event = true;
  if (event.finished) ++num_finished_;
  if (!request.on_tokens) {
    events_.add(event);
    return;
  }
  try {
    request.on_tokens(event);
  } catch (...) {
    // The other requests must not pay for it. A last event counts as delivered.
    if (!event.finished) broken_.push_back(&request);
  }
}

EngineStats EngineCore::totals() const {
  EngineStats totals = totals_;
  totals.cached_tokens += scheduler_->num_cached_tokens();
  totals.preemptions += scheduler_->num_preemptions();
  totals.adapter_swaps += adapters_->counts().swaps;
  totals.adapter_slot_evictions += adapters_->counts().evictions;
  totals.adapter_copied_bytes += adapters_->counts().copied_bytes;
  return totals;
}

EngineStats EngineCore::stats() const {
  EngineStats stats = totals();
  stats.device_seconds = runner_.device_seconds();
  stats.operation_times = runner_.operation_times();
  stats.running = scheduler_->num_running();
  stats.queued = scheduler_->num_waiting() + static_cast<int32_t>(parked_.size());
  stats.kv_blocks_used = scheduler_->pool().num_held();
  stats.kv_blocks_cached = scheduler_->pool().num_cached();
  stats.kv_blocks_total = scheduler_->pool().num_blocks();
  stats.adapter_slots_used = adapters_->num_used();
  stats.adapter_slots_total = max_adapters_;
  return stats;
}

}  // namespace braid

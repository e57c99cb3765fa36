#include "engine/engine_thread.h"

#include <utility>

#include "base/check.h"

namespace braid {
namespace {

// Files may name end tokens that the model does not have: nothing can draw them.
EngineThreadOptions without_unknown_tokens(EngineThreadOptions options, int32_t vocab_size) {
  std::erase_if(options.eos_tokens,
                [&](int32_t token) { return token < 0 || token >= vocab_size; });
  return options;
}

}  // namespace

EngineThread::EngineThread(std::unique_ptr<cpu::ThreadPool> pool, std::unique_ptr<Runner> runner,
                           TokenTextFactory make_text, EngineThreadOptions options)
    : options_(without_unknown_tokens(std::move(options), runner->config().vocab_size)),
      make_text_(std::move(make_text)),
      pool_(std::move(pool)),
      runner_(std::move(runner)),
      grammars_(options_.vocabulary),
      core_(*runner_, pool_.get(), options_.scheduler, options_.max_adapters, options_.on_step),
      stats_(core_.stats()) {
  const SchedulerOptions& scheduler = options_.scheduler;
  const int64_t cache_tokens = int64_t{scheduler.num_blocks} * scheduler.block_size;
  BRAID_CHECK_LE(int64_t{options_.max_context}, cache_tokens);
  thread_ = std::thread([this] { run(); });
}

EngineThread::~EngineThread() { stop(); }

void EngineThread::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  has_mail_.notify_one();
  thread_.join();
}

Status EngineThread::check(const Request& request) const {
  const int32_t vocab_size = runner_->config().vocab_size;
  if (request.prompt.empty())
    return fail(ErrorCode::kInvalidArgument, "the prompt is empty, it must have a token");
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    const int32_t token = request.prompt[i];
    if (token < 0 || token >= vocab_size) {
      return fail(ErrorCode::kInvalidArgument,
                  "token {} of the prompt is {}, the vocabulary is 0 to {}", i, token,
                  vocab_size - 1);
    }
  }
  if (auto why = why_invalid(request.sampling, vocab_size); !why.empty())
    return fail(ErrorCode::kInvalidArgument, "{}", why);
  const size_t wanted = request.prompt.size() + static_cast<size_t>(request.sampling.max_tokens);
  if (wanted > static_cast<size_t>(options_.max_context)) {
    return fail(ErrorCode::kInvalidArgument,
                "a prompt of {} tokens and max_tokens {} make {}, the context is {} tokens",
                request.prompt.size(), request.sampling.max_tokens, wanted, options_.max_context);
  }
  if (!request.sampling.stop.empty() && !make_text_)
    return fail(ErrorCode::kInvalidArgument,
                "stop strings need a tokenizer, the model has none; use stop_token_ids");
  return {};
}

Result<RequestId> EngineThread::submit(Request request, AdapterLease adapter, OnTokens on_tokens) {
  if (!on_tokens && !options_.on_step)
    return fail(ErrorCode::kInvalidArgument, "the request has no on_tokens, the engine no on_step");
  if (auto status = check(request); !status) return pass_on(status);
  auto end_tokens = request.sampling.stop_token_ids;
  if (!request.sampling.ignore_eos)
    end_tokens.insert(end_tokens.end(), options_.eos_tokens.begin(), options_.eos_tokens.end());
  auto text = make_text_ ? make_text_(request.sampling.skip_special_tokens) : nullptr;
  std::optional<grammar::Matcher> matcher;
  if (request.sampling.grammar) {
    auto made = grammars_.matcher(*request.sampling.grammar);
    if (!made) return pass_on(made);
    matcher = std::move(*made);
  }

  RequestId id;
  {
    const std::lock_guard lock(mutex_);
    if (stops_) return fail(ErrorCode::kResourceExhausted, "the engine is being closed");
    if (num_queued_ >= options_.max_queued_requests) {
      return fail(ErrorCode::kResourceExhausted,
                  "{} requests are queued, which is the limit; try again later", num_queued_);
    }
    // The order of ids is that of arrival.
    id = RequestId{next_id_};
    auto counters = adapter.counters() ? adapter.counters() : base_counters_;
    arrivals_.push_back(std::make_unique<RequestState>(
        id, std::move(request), std::move(adapter), std::move(counters), std::move(end_tokens),
        std::move(matcher), std::move(text), std::move(on_tokens)));
    arrivals_.back()->times.queued = std::chrono::steady_clock::now();
    ++next_id_;
    ++num_queued_;
    ++num_unfinished_;
  }
  has_mail_.notify_one();
  return id;
}

Status EngineThread::prepare_grammar(const OutputGrammar& grammar) {
  auto made = grammars_.matcher(grammar);
  if (!made) return pass_on(made);
  return {};
}

void EngineThread::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    cancels_.push_back(id);
  }
  has_mail_.notify_one();
}

void EngineThread::adapters_changed() {
  {
    const std::lock_guard lock(mutex_);
    adapters_changed_ = true;
  }
  has_mail_.notify_one();
}

void EngineThread::flush_prefix_cache() {
  {
    const std::lock_guard lock(mutex_);
    flushes_prefixes_ = true;
  }
  has_mail_.notify_one();
}

void EngineThread::wait_until_idle() {
  std::unique_lock lock(mutex_);
  is_idle_.wait(lock, [&] { return num_unfinished_ == 0; });
}

EngineStats EngineThread::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.queued += static_cast<int32_t>(arrivals_.size());
  stats.base = base_counters_->counts();
  return stats;
}

std::vector<AdapterHash> EngineThread::hashes_in_slots() const {
  const std::lock_guard lock(mutex_);
  return hashes_in_slots_;
}

void EngineThread::run() {
  std::vector<std::unique_ptr<RequestState>> arrivals;
  std::vector<RequestId> cancels;
  int64_t num_finished = 0;
  bool looks_at_adapters = false;
  int64_t slot_changes = 0;
  for (;;) {
    bool stops = false;
    {
      std::unique_lock lock(mutex_);
      has_mail_.wait(lock, [&] {
        return stops_ || adapters_changed_ || flushes_prefixes_ || !arrivals_.empty() ||
               !cancels_.empty() || core_.has_work();
      });
      arrivals.swap(arrivals_);
      cancels.swap(cancels_);
      looks_at_adapters |= std::exchange(adapters_changed_, false);
      if (std::exchange(flushes_prefixes_, false)) core_.flush_prefix_cache();
      stops = stops_;
    }
    const auto num_arrived = static_cast<int32_t>(arrivals.size());
    const int32_t queued_before = core_.num_never_started();
    for (auto& request : arrivals) core_.add(std::move(request));
    arrivals.clear();
    for (const RequestId id : cancels) core_.cancel(id);
    cancels.clear();
    // The slot of an adapter that was let go may still be in use: tried again until nothing runs.
    if (looks_at_adapters) core_.look_at_adapters();
    if (stops) {
      core_.cancel_all();
    } else {
      core_.step();
    }
    if (looks_at_adapters && !core_.has_work()) {
      core_.look_at_adapters();
      looks_at_adapters = core_.has_work();
    }
    core_.deliver_events();
    {
      const std::lock_guard lock(mutex_);
      num_queued_ -= queued_before + num_arrived - core_.num_never_started();
      num_unfinished_ -= core_.num_finished() - num_finished;
      num_finished = core_.num_finished();
      stats_ = core_.stats();
      if (const auto& adapters = core_.adapters(); adapters.num_changes() != slot_changes) {
        slot_changes = adapters.num_changes();
        hashes_in_slots_ = adapters.hashes();
      }
      if (num_unfinished_ == 0) is_idle_.notify_all();
      if (stops && arrivals_.empty()) return;  // submit() has let nobody in since
    }
  }
}

}  // namespace braid

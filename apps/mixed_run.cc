#include "apps/mixed_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace braid::apps {
namespace {

using Clock = std::chrono::steady_clock;

Clock::duration seconds(double value) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(value));
}

double seconds_between(TokenTime begin, TokenTime end) {
  return std::chrono::duration<double>(end - begin).count();
}

// One run: what its requests' callbacks saw, and the requests.
class MixedRun {
 public:
  MixedRun(Engine& engine, const MixedLoad& load, const BenchArm& arm, uint64_t seed)
      : engine_(engine),
        load_(load),
        arm_(arm),
        seed_(seed),
        token_times_(static_cast<size_t>(arm.batch)),
        prompts_(static_cast<size_t>(num_prompts(load))),
        streams_in_flight_(engine),
        prompts_in_flight_(engine) {}

  // Returns when each of them has two tokens: the step of a first one may share work with prefill.
  Status start_streams();

  // The tokens of the next prompt, for send_prompt(): made before it is due.
  std::vector<int32_t> next_prompt() const {
    return bench_prompt(engine_, load_.prompt_tokens, seed_, arm_.batch + num_sent_);
  }
  // At most num_prompts(load) times.
  Status send_prompt(std::vector<int32_t> tokens);

  // These fail where a request has ended that should not have.
  Status wait_until(TokenTime time);
  Status wait_for_prompts();

  // What wait_past_end() waits for: a token of every stream after `end`. Set before that time.
  void set_end(TokenTime end);
  Status wait_past_end();

  int32_t num_sent() const { return num_sent_; }
  // Tokens of the stream that has made most.
  int32_t most_tokens() const;
  MixedSamples samples(TokenTime quiet_begin, TokenTime load_begin, TokenTime end) const;

 private:
  struct Prompt {
    TokenTime sent;
    std::optional<TokenTime> first_token;
  };

  void on_stream(size_t stream, const TokenEvent& event);
  void on_prompt(size_t prompt, const TokenEvent& event);
  AdapterId adapter(int32_t request) const {
    return arm_.adapter_of_request[static_cast<size_t>(request % arm_.batch)];
  }
  Status wait(TokenTime time, const std::function<bool()>& is_true);
  std::string why_stream_ended() const;

  Engine& engine_;
  const MixedLoad& load_;
  const BenchArm& arm_;
  const uint64_t seed_;
  const TokenTime begin_ = Clock::now();
  std::optional<TokenTime> decoding_since_;  // all streams
  int32_t num_sent_ = 0;

  mutable std::mutex mutex_;  // over what callbacks write
  std::condition_variable has_changed_;
  std::vector<std::vector<TokenTime>> token_times_;  // [stream][token]
  std::vector<Prompt> prompts_;
  TokenTime end_ = TokenTime::max();
  int32_t num_decoding_ = 0;
  int32_t num_past_end_ = 0;
  int32_t num_prompts_done_ = 0;
  bool a_stream_ended_ = false;
  std::string error_;

  InFlight streams_in_flight_;  // after what their callbacks write
  InFlight prompts_in_flight_;
};

Status MixedRun::start_streams() {
  for (int32_t i = 0; i < arm_.batch; ++i) {
    Request request = {.prompt = bench_prompt(engine_, load_.context, seed_, i),
                       .adapter = adapter(i),
                       .sampling = {.temperature = 0,
                                    .max_tokens = engine_.max_context() - load_.context,
                                    .ignore_eos = true}};
    auto status = streams_in_flight_.submit(std::move(request), [this, i](const TokenEvent& event) {
      on_stream(static_cast<size_t>(i), event);
    });
    if (!status) return status;
  }
  auto status = wait(TokenTime::max(), [this] { return num_decoding_ == arm_.batch; });
  if (status) decoding_since_ = Clock::now();
  return status;
}

Status MixedRun::send_prompt(std::vector<int32_t> tokens) {
  const auto index = static_cast<size_t>(num_sent_);
  Request request = {.prompt = std::move(tokens),
                     .adapter = adapter(num_sent_),
                     .sampling = {.temperature = 0, .max_tokens = 1, .ignore_eos = true}};
  {
    const std::lock_guard lock(mutex_);
    prompts_[index].sent = Clock::now();
  }
  ++num_sent_;
  return prompts_in_flight_.submit(
      std::move(request), [this, index](const TokenEvent& event) { on_prompt(index, event); });
}

void MixedRun::on_stream(size_t stream, const TokenEvent& event) {
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  auto& times = token_times_[stream];
  const bool was_decoding = times.size() >= 2;
  const bool was_past_end = !times.empty() && times.back() >= end_;
  times.insert(times.end(), event.tokens.size(), now);
  const bool is_decoding = times.size() >= 2;
  const bool is_past_end = !times.empty() && times.back() >= end_;
  if (is_decoding && !was_decoding) ++num_decoding_;
  if (is_past_end && !was_past_end) ++num_past_end_;
  if (event.finished && event.reason != FinishReason::kCancelled) a_stream_ended_ = true;
  if (event.reason == FinishReason::kError) error_ = event.error;
  // While a phase lasts nobody needs to wake up.
  if (is_decoding != was_decoding || is_past_end != was_past_end || event.finished)
    has_changed_.notify_one();
}

void MixedRun::on_prompt(size_t prompt, const TokenEvent& event) {
  const auto now = Clock::now();
  const std::lock_guard lock(mutex_);
  auto& first_token = prompts_[prompt].first_token;
  if (!event.tokens.empty() && !first_token) first_token = now;
  if (event.reason == FinishReason::kError) error_ = event.error;
  if (!event.finished) return;
  ++num_prompts_done_;
  has_changed_.notify_one();
}

std::string MixedRun::why_stream_ended() const {
  const auto now = Clock::now();
  const double elapsed = seconds_between(begin_, now);
  const double wanted =
      seconds_between(begin_, decoding_since_.value_or(now)) + load_.quiet + load_.loaded;
  return fmt::format(
      "a stream reached the context of {} tokens {:.2f} s after it began, and {:.2f} s were to be "
      "measured; at its pace that takes a context of {:.0f}. Lower --seconds, --quiet or "
      "--context, or raise --max-context where the model has more",
      engine_.max_context(), elapsed, load_.quiet + load_.loaded,
      std::max(std::ceil(load_.context + most_tokens() * wanted / elapsed),
               engine_.max_context() + 1.0));
}

Status MixedRun::wait(TokenTime time, const std::function<bool()>& is_true) {
  std::unique_lock lock(mutex_);
  const auto is_over = [&] { return !error_.empty() || a_stream_ended_ || is_true(); };
  if (time == TokenTime::max()) {
    has_changed_.wait(lock, is_over);
  } else {
    has_changed_.wait_until(lock, time, is_over);
  }
  if (!error_.empty()) return fail(ErrorCode::kInvalidArgument, "{}", error_);
  if (!a_stream_ended_) return {};
  lock.unlock();
  return fail(ErrorCode::kInvalidArgument, "{}", why_stream_ended());
}

Status MixedRun::wait_until(TokenTime time) {
  return wait(time, [] { return false; });
}

Status MixedRun::wait_for_prompts() {
  return wait(TokenTime::max(), [this] { return num_prompts_done_ == num_sent_; });
}

void MixedRun::set_end(TokenTime end) {
  const std::lock_guard lock(mutex_);
  end_ = end;
}

Status MixedRun::wait_past_end() {
  return wait(TokenTime::max(), [this] { return num_past_end_ == arm_.batch; });
}

int32_t MixedRun::most_tokens() const {
  const std::lock_guard lock(mutex_);
  size_t most = 0;
  for (const auto& times : token_times_) most = std::max(most, times.size());
  return static_cast<int32_t>(most);
}

MixedSamples MixedRun::samples(TokenTime quiet_begin, TokenTime load_begin, TokenTime end) const {
  MixedSamples samples = {.num_sent = num_sent_};
  const std::lock_guard lock(mutex_);
  const auto append = [](std::vector<double>& to, const std::vector<double>& gaps) {
    to.insert(to.end(), gaps.begin(), gaps.end());
  };
  int64_t quiet_tokens = 0, loaded_tokens = 0;
  for (const auto& times : token_times_) {
    const auto after = [&](TokenTime time) { return std::ranges::upper_bound(times, time); };
    quiet_tokens += after(load_begin) - after(quiet_begin);
    loaded_tokens += after(end) - after(load_begin);
    append(samples.quiet_ms,
           gaps_ms(std::span(times.begin(), after(load_begin)), quiet_begin, load_begin));
    append(samples.loaded_ms, gaps_ms(times, load_begin, end));
  }
  samples.quiet_tokens_per_s =
      static_cast<double>(quiet_tokens) / seconds_between(quiet_begin, load_begin);
  samples.loaded_tokens_per_s =
      static_cast<double>(loaded_tokens) / seconds_between(load_begin, end);
  for (const Prompt& prompt : prompts_) {
    if (prompt.first_token && *prompt.first_token <= end)
      samples.first_token_ms.push_back(1e3 * seconds_between(prompt.sent, *prompt.first_token));
  }
  return samples;
}

// Whether the KV cache has room for streams of that many tokens and the prompts beside them.
Status check_kv_cache(const Engine& engine, const EngineConfig& config, const MixedLoad& load,
                      const BenchArm& arm, int32_t stream_tokens) {
  const int64_t block_size = config.kv_block_size;
  // The scheduler leaves each request that runs the block it may need next.
  const auto blocks_of = [&](int64_t tokens) { return (tokens + block_size - 1) / block_size + 1; };
  const int32_t prompts =
      std::min(num_prompts(load), prompts_at_a_time(load, config.max_batch_tokens));
  const int64_t wanted =
      arm.batch * blocks_of(stream_tokens) + prompts * blocks_of(load.prompt_tokens + 1);
  const int64_t held = engine.stats().kv_blocks_total;
  if (wanted <= held) return {};
  return fail(ErrorCode::kResourceExhausted,
              "{} streams of {} tokens and {} prompts at a time take {} tokens of KV cache, it has "
              "{}; raise --kv-cache, or lower --streams, --context or --seconds",
              arm.batch, stream_tokens, prompts, wanted * block_size, held * block_size);
}

Result<MixedSamples> measure(MixedRun& run, const Engine& engine, const MixedLoad& load) {
  if (auto status = run.start_streams(); !status) return pass_on(status);
  const auto quiet_begin = Clock::now();
  std::vector<int32_t> prompt = run.next_prompt();  // made while others work
  if (auto status = run.wait_until(quiet_begin + seconds(load.quiet)); !status)
    return pass_on(status);

  const int64_t computed_before = engine.stats().prompt_tokens;
  const auto load_begin = Clock::now();
  const auto end = load_begin + seconds(load.loaded);
  run.set_end(end);
  for (const int32_t total = num_prompts(load); run.num_sent() < total;) {
    if (auto status = run.wait_until(load_begin + seconds(run.num_sent() * load.interval)); !status)
      return pass_on(status);
    if (auto status = run.send_prompt(std::move(prompt)); !status) return pass_on(status);
    if (run.num_sent() < total) prompt = run.next_prompt();
  }
  if (auto status = run.wait_until(end); !status) return pass_on(status);
  const int64_t computed_after = engine.stats().prompt_tokens;
  if (auto status = run.wait_past_end(); !status) return pass_on(status);

  MixedSamples samples = run.samples(quiet_begin, load_begin, end);
  samples.prompt_tokens_per_s = static_cast<double>(computed_after - computed_before) / load.loaded;
  if (samples.quiet_ms.empty() || samples.loaded_ms.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "no stream had two tokens in {} {} s; raise it, or lower --streams",
                samples.quiet_ms.empty() ? "--quiet" : "--seconds",
                samples.quiet_ms.empty() ? load.quiet : load.loaded);
  }
  return samples;
}

}  // namespace

int32_t num_prompts(const MixedLoad& load) {
  // 3 s at 0.1 s are 30 prompts, whatever the quotient rounds to.
  return std::max(1, static_cast<int32_t>(std::ceil(load.loaded / load.interval - 1e-6)));
}

int32_t prompts_at_a_time(const MixedLoad& load, int32_t max_batch_tokens) {
  return (max_batch_tokens + load.prompt_tokens - 1) / load.prompt_tokens + 1;
}

Result<MixedSamples> run_mixed(Engine& engine, const EngineConfig& config, const MixedLoad& load,
                               const BenchArm& arm, uint64_t seed) {
  MixedRun run(engine, load, arm, seed);
  auto samples = measure(run, engine, load);
  // Without room requests waited for each other, whatever else came of it.
  auto has_room = check_kv_cache(engine, config, load, arm, load.context + run.most_tokens());
  if (!has_room) return pass_on(has_room);
  return samples;
}

Status warm_up_mixed(Engine& engine, const EngineConfig& config, const MixedLoad& load,
                     const BenchArm& arm, uint64_t seed) {
  if (auto status = check_kv_cache(engine, config, load, arm, load.context + 2); !status)
    return status;
  MixedRun run(engine, load, arm, seed);
  if (auto status = run.start_streams(); !status) return status;
  if (auto status = run.send_prompt(run.next_prompt()); !status) return status;
  return run.wait_for_prompts();
}

std::vector<double> gaps_ms(std::span<const TokenTime> times, TokenTime begin, TokenTime end) {
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) {
    if (times[i - 1] >= begin && times[i - 1] < end)
      gaps.push_back(1e3 * seconds_between(times[i - 1], times[i]));
  }
  return gaps;
}

bool queue_grows(std::span<const double> first_token_ms, int32_t num_sent) {
  const size_t num_done = first_token_ms.size();
  if (num_done >= static_cast<size_t>(num_sent)) return false;
  if (num_done < 2) return true;
  const auto earlier = first_token_ms.first(num_done / 2);
  const auto later = first_token_ms.last(num_done / 2);
  return median({later.begin(), later.end()}) > 1.1 * median({earlier.begin(), earlier.end()});
}

}  // namespace braid::apps

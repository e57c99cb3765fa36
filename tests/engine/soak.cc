#include "tests/engine/soak.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "base/check.h"
#include "tests/engine/soak_cases.h"
#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

constexpr int kClients = 4;
constexpr size_t kMaxInFlight = 40;

std::string name_of(int name) { return fmt::format("adapter {}", name); }

// The engine under load.
class Load {
 public:
  Load(const SoakOptions& options, const SoakFolder& folder, const std::vector<SoakCase>& cases,
       const SoakSizes& adapters)
      : options_(options),
        folder_(folder),
        cases_(cases),
        config_(short_of_everything(folder, options, adapters)) {
    auto opened = Engine::open(config_);
    if (!opened) throw InternalError(opened.error().message);
    engine_ = std::move(*opened);
    for (int name = 0; name < kSoakNames; ++name) {
      auto id = engine_->add_adapter(name_of(name), folder_.adapter(contents_of(name).front()));
      if (!id) fault("add_adapter: " + id.error().message);
    }
  }

  SoakReport run() {
    std::vector<std::thread> threads;
    for (int client = 0; client < kClients; ++client)
      threads.emplace_back([this, client] { submit_and_cancel(client); });
    threads.emplace_back([this] { change_adapters(); });
    watch();
    stops_ = true;
    for (std::thread& thread : threads) thread.join();
    engine_->wait_until_idle();
    report_.stats = engine_->stats();
    const EngineStats& stats = report_.stats;
    if (stats.running + stats.queued + stats.kv_blocks_used != 0) {
      fault(fmt::format("idle with {} running, {} queued, {} KV blocks held", stats.running,
                        stats.queued, stats.kv_blocks_used));
    }
    remove_adapters();
    destroy_under_load();
    compare();
    return std::move(report_);
  }

 private:
  // A request that was accepted; its reply has the same index in replies_.
  struct Sent {
    const SoakCase* what = nullptr;
    bool is_cancelled = false;  // at some time, which may have been too late
  };

  void fault(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (report_.faults.size() < 10) report_.faults.push_back(what);
  }

  // Nothing where the adapter is gone just now.
  std::optional<AdapterId> adapter_of(const SoakCase& c) const {
    if (c.name == kBaseName) return AdapterId::kBase;
    return engine_->find_adapter(name_of(c.name));
  }

  // Submits a case; it is cancelled when it has that many tokens, if it gets there.
  Result<RequestId> submit(const SoakCase& c, AdapterId adapter, std::optional<int32_t> cancel_at) {
    std::pair<OnTokens, size_t> reply;
    {
      const std::lock_guard lock(mutex_);
      reply = replies_.add();
      sent_.push_back({.what = &c, .is_cancelled = cancel_at.has_value()});
      ++num_in_flight_;
    }
    auto id = engine_->submit({.prompt = c.prompt, .adapter = adapter, .sampling = c.sampling},
                              [this, cancel_at, on_tokens = reply.first](const TokenEvent& event) {
                                on_tokens(event);
                                if (event.completion_tokens == cancel_at)
                                  engine_->cancel(event.request);
                                if (event.finished) end_one();
                              });
    if (!id) {
      end_one();
      const std::lock_guard lock(mutex_);
      sent_[reply.second].what = nullptr;
    }
    return id;
  }

  void end_one() {
    const std::lock_guard lock(mutex_);
    --num_in_flight_;
    has_ended_.notify_all();
  }

  void submit_and_cancel(int client) {
    std::mt19937_64 random(options_.seed * 100 + static_cast<uint64_t>(client));
    const auto below = [&](uint64_t n) { return random() % n; };
    while (!stops_) {
      {
        std::unique_lock lock(mutex_);
        // Now and then until few are left, so that some steps only decode.
        const size_t limit = below(20) == 0 ? 4 : kMaxInFlight;
        has_ended_.wait(lock, [&] { return num_in_flight_ < limit; });
      }
      const SoakCase& c = cases_[below(cases_.size())];
      const auto adapter = adapter_of(c);
      if (!adapter) {
        ++num_refused_;
        continue;
      }
      std::optional<int32_t> cancel_at;
      if (below(6) == 0) cancel_at = static_cast<int32_t>(1 + below(20));
      const auto id = submit(c, *adapter, cancel_at);
      if (!id && id.error().code != ErrorCode::kNotFound) fault("submit: " + id.error().message);
      if (!id) ++num_refused_;
      // At once: while it waits, or in its prompt.
      if (id && cancel_at == 1) engine_->cancel(*id);
      if (below(200) == 0) engine_->flush_prefix_cache();
    }
  }

  void change_adapters() {
    std::mt19937_64 random(options_.seed + 77);
    const auto below = [&](uint64_t n) { return random() % n; };
    int content_of_swapped = kSoakContents - 2;
    while (!stops_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(below(10)));
      const int name = static_cast<int>(below(kSoakNames));
      const auto content = [&] { return name == kSwappedName ? content_of_swapped : name; };
      const auto id = engine_->find_adapter(name_of(name));
      if (!id) {
        fault(name_of(name) + " is gone");
        return;
      }
      ++num_adapter_changes_;
      Status done;
      switch (name == kSwappedName ? 0 : below(3)) {
        case 0: {  // replaced, the last name by its other content
          if (name == kSwappedName) content_of_swapped ^= (kSoakContents - 2) ^ (kSoakContents - 1);
          auto replaced = engine_->add_adapter(name_of(name), folder_.adapter(content()),
                                               {.mode = LoadMode::kReplace});
          if (!replaced) done = pass_on(replaced);
          break;
        }
        case 1: {  // removed and, a little later, added again
          done = engine_->remove_adapter(*id);
          std::this_thread::sleep_for(std::chrono::milliseconds(below(3)));
          auto added = engine_->add_adapter(name_of(name), folder_.adapter(content()));
          if (!added) done = pass_on(added);
          break;
        }
        default: {  // pinned, if there is room beside what must stay, and let go of
          auto pinned = engine_->pin_adapter(*id, true);
          if (!pinned && pinned.error().code != ErrorCode::kResourceExhausted) done = pinned;
          std::this_thread::sleep_for(std::chrono::milliseconds(below(5)));
          auto unpinned = engine_->pin_adapter(*id, false);
          if (!unpinned) done = unpinned;
        }
      }
      if (!done) fault("an adapter's change: " + done.error().message);
    }
  }

  // Until there were enough steps and everything has happened.
  void watch() {
    const auto deadline = std::chrono::steady_clock::now() + 120s;
    for (;; std::this_thread::sleep_for(2ms)) {
      const EngineStats stats = engine_->stats();
      if (stats.adapter_host_bytes > config_.adapter_host_bytes) {
        fault(fmt::format("{} bytes of factors in host memory, {} are allowed",
                          stats.adapter_host_bytes, config_.adapter_host_bytes));
        return;
      }
      const bool has_all = stats.preemptions > 0 && stats.cached_tokens > 0 &&
                           stats.adapter_evictions > 0 && stats.adapter_slot_evictions > 0 &&
                           num_adapter_changes_ >= kSoakNames;
      if (stats.steps >= options_.num_steps && has_all) return;
      if (std::chrono::steady_clock::now() < deadline) continue;
      fault(
          fmt::format("{} steps after 120 s, {} preemptions, {} cached tokens, {} and {} "
                      "evictions, {} changes of adapters",
                      stats.steps, stats.preemptions, stats.cached_tokens, stats.adapter_evictions,
                      stats.adapter_slot_evictions, num_adapter_changes_.load()));
      return;
    }
  }

  void remove_adapters() {
    for (const AdapterInfo& info : engine_->adapters()) {
      if (auto removed = engine_->remove_adapter(info.id); !removed)
        fault("remove_adapter: " + removed.error().message);
    }
    // Slots are let go of on the engine's thread.
    for (int i = 0; i < 2000 && engine_->stats().adapter_slots_used > 0; ++i)
      std::this_thread::sleep_for(1ms);
    const EngineStats stats = engine_->stats();
    if (stats.adapter_host_bytes != 0 || stats.adapter_slots_used != 0) {
      fault(fmt::format("all adapters are removed, {} bytes and {} slots are held",
                        stats.adapter_host_bytes, stats.adapter_slots_used));
    }
  }

  void destroy_under_load() {
    for (const SoakCase& c : cases_) {
      if (c.name != kBaseName) continue;
      auto id = submit(c, AdapterId::kBase, std::nullopt);
      const std::lock_guard lock(mutex_);
      sent_.back().is_cancelled = true;
    }
    engine_.reset();
  }

  // No callback can come any more.
  void compare() {
    report_.num_refused = num_refused_;
    report_.num_adapter_changes = num_adapter_changes_;
    for (size_t i = 0; i < sent_.size(); ++i) {
      const auto& [what, is_cancelled] = sent_[i];
      if (what == nullptr) continue;
      ++report_.num_requests;
      const Reply got = replies_.at(i);
      report_.num_cancelled += got.reason == FinishReason::kCancelled;
      std::string why;
      for (const auto& [content, answer] : what->answer_of_content) {
        why = why_different(got, answer);
        if (!why.empty() && is_cancelled && got.reason == FinishReason::kCancelled)
          why = why_different(got, beginning(answer, got));
        if (why.empty()) break;
      }
      if (why.empty()) continue;
      fault(fmt::format("request {} of {} (adapter {}, prompt of {}): {}", i, sent_.size(),
                        what->name, what->prompt.size(), why));
    }
  }

  // As much of an answer as a cancelled request had got.
  static Reply beginning(Reply answer, const Reply& got) {
    answer.tokens.resize(std::min(answer.tokens.size(), got.tokens.size()));
    answer.logprobs.resize(std::min(answer.logprobs.size(), got.logprobs.size()));
    if (got.tokens.empty() && got.prompt_logprobs.empty()) answer.prompt_logprobs.clear();
    answer.reason = FinishReason::kCancelled;
    return answer;
  }

  const SoakOptions options_;
  const SoakFolder& folder_;
  const std::vector<SoakCase>& cases_;
  const EngineConfig config_;
  std::unique_ptr<Engine> engine_;
  Replies replies_;
  std::atomic<bool> stops_ = false;
  std::atomic<int64_t> num_refused_ = 0, num_adapter_changes_ = 0;

  std::mutex mutex_;
  std::condition_variable has_ended_;
  // Under mutex_:
  std::vector<Sent> sent_;
  size_t num_in_flight_ = 0;
  SoakReport report_;
};

}  // namespace

std::string SoakReport::to_string() const {
  return fmt::format(
      "{} steps, {} requests, of them {} cancelled; {} tokens of prompts, {} cached, {} generated; "
      "{} preemptions; {} adapter changes, {} loads, {} evictions from host memory, {} swaps, {} "
      "evictions from slots, {} bytes copied; {} submissions without their adapter",
      stats.steps, num_requests, num_cancelled, stats.prompt_tokens, stats.cached_tokens,
      stats.generated_tokens, stats.preemptions, num_adapter_changes, stats.adapter_loads,
      stats.adapter_evictions, stats.adapter_swaps, stats.adapter_slot_evictions,
      stats.adapter_copied_bytes, num_refused);
}

SoakReport soak(const SoakOptions& options) {
  const SoakFolder folder(options.architecture);
  std::vector<SoakCase> cases = make_soak_cases(options.num_cases, options.seed);
  const SoakSizes sizes = answer_alone(folder, options, cases);
  return Load(options, folder, cases, sizes).run();
}

}  // namespace braid::test
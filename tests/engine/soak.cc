#include "tests/engine/soak.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "tests/adapter/adapter_builder.h"
#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

namespace fs = std::filesystem;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

constexpr int32_t kHidden = 256, kHeads = 4, kKvHeads = 2, kHeadDim = 64, kInner = 128;
constexpr int32_t kLayers = 2, kExperts = 8, kVocab = 512, kBlock = 16;
constexpr int kContents = 8, kNames = 7, kClients = 4;
constexpr int kBase = -1, kSwapped = kNames - 1;  // the last name has the last two contents in turn
constexpr size_t kMaxInFlight = 40;

std::string name_of(int name) { return fmt::format("adapter {}", name); }

// A model's folder, and a folder for each content.
class Folder {
 public:
  explicit Folder(Architecture architecture) : is_mixtral_(architecture == Architecture::kMixtral) {
    Json config = {{"architectures", {is_mixtral_ ? "MixtralForCausalLM" : "Qwen3MoeForCausalLM"}},
                   {"hidden_size", kHidden},
                   {"intermediate_size", is_mixtral_ ? kInner : 2 * kInner},
                   {"num_attention_heads", kHeads},
                   {"num_key_value_heads", kKvHeads},
                   {"head_dim", kHeadDim},
                   {"num_hidden_layers", kLayers},
                   {"num_experts_per_tok", 2},
                   {"vocab_size", kVocab},
                   {"max_position_embeddings", 512},
                   {"rms_norm_eps", 1e-6},
                   {"rope_theta", 1e6},
                   {"hidden_act", "silu"},
                   {"tie_word_embeddings", false}};
    if (is_mixtral_) {
      config["num_local_experts"] = kExperts;
    } else {
      config["num_experts"] = kExperts;
      config["moe_intermediate_size"] = kInner;
      config["norm_topk_prob"] = true;
      config["decoder_sparse_step"] = 1;
      config["mlp_only_layers"] = Json::array();
    }
    write("config.json", config);
    write("generation_config.json", {{"eos_token_id", {7, 9}}});
    for (int content = 0; content < kContents; ++content) write_adapter(content);
  }

  const fs::path& model() const { return folder_.path(); }
  fs::path adapter(int content) const { return folder_.path() / std::to_string(content); }

 private:
  void write(const std::string& file, const Json& json) {
    BRAID_CHECK(write_file(folder_.path() / file, json.dump()).has_value());
  }

  void write_adapter(int content) {
    const int64_t rank = int64_t{4} << content % 4;
    AdapterBuilder builder;
    builder.config["r"] = rank;
    builder.config["lora_alpha"] = static_cast<double>(rank) / 64;
    const auto add = [&](const std::string& module, int64_t in, int64_t out) {
      // Other values for each content: those of the builder follow from names.
      const auto seed = static_cast<uint64_t>(builder.tensors.size() + 1000 * content);
      builder.add(module + ".lora_A.weight", {rank, in}, some_values(rank * in, seed));
      builder.add(module + ".lora_B.weight", {out, rank}, some_values(out * rank, seed + 500));
    };
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const std::string prefix = fmt::format("base_model.model.model.layers.{}.", layer);
      add(prefix + "self_attn.q_proj", kHidden, kHeads * kHeadDim);
      add(prefix + "self_attn.v_proj", kHidden, kKvHeads * kHeadDim);
      add(prefix + "self_attn.o_proj", kHeads * kHeadDim, kHidden);
      if (content % 2 == 1) continue;
      for (int32_t expert = 0; expert < kExperts; ++expert) {
        const std::string of_expert = prefix + (is_mixtral_ ? "block_sparse_moe" : "mlp") +
                                      fmt::format(".experts.{}.", expert);
        add(of_expert + (is_mixtral_ ? "w1" : "gate_proj"), kHidden, kInner);
        add(of_expert + (is_mixtral_ ? "w3" : "up_proj"), kHidden, kInner);
        add(of_expert + (is_mixtral_ ? "w2" : "down_proj"), kInner, kHidden);
      }
    }
    fs::create_directory(adapter(content));
    builder.write(adapter(content));
  }

  const bool is_mixtral_;
  TempFolder folder_;
};

// A request, and what it gives alone.
struct Case {
  int name = kBase;  // of its adapter
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  std::map<int, Reply> answer_of_content;
};

std::vector<int> contents_of(int name) {
  if (name == kSwapped) return {kContents - 2, kContents - 1};
  return {name};
}

std::vector<Case> make_cases(int32_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t n) { return static_cast<int32_t>(random() % n); };
  std::vector<Case> cases(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    Case& c = cases[static_cast<size_t>(i)];
    c.name = i % (kNames + 1) - 1;
    // Whole blocks that other prompts begin with too, then tokens of its own, so that nobody's
    // prompt is another's prompt and reply.
    for (int32_t t = 0, shared = kBlock * below(6); t < shared; ++t)
      c.prompt.push_back((t * t + 3 * t) % kVocab);
    for (int32_t t = 0, own = 6 + below(40); t < own; ++t) c.prompt.push_back(below(kVocab));
    SamplingParams& s = c.sampling;
    s.max_tokens = 1 + below(90);
    s.seed = random();
    s.ignore_eos = i % 3 == 0;
    // By what must be able to pick on the device, then by the host alone.
    s.temperature = i % 4 == 0 ? 0.0f : 1.0f;
    s.top_k = i % 5 == 1 ? 20 : 0;
    s.top_p = i % 5 == 2 ? 0.8f : 1.0f;
    s.min_p = i % 5 == 3 ? 0.05f : 0.0f;
    const int32_t extra = below(8);
    if (extra <= 2) s.logprobs = extra;
    if (extra == 3) s.prompt_logprobs = 1;
    if (extra == 4) s.repetition_penalty = 1.3f;
    if (extra == 4) s.stop_token_ids = {5, 50, 100};
    if (extra == 5) s.min_tokens = s.max_tokens / 2;
    if (extra == 5) s.logit_bias = {{11, 5.0f}, {12, -100.0f}};
  }
  return cases;
}

EngineConfig roomy(const Folder& folder, Device device) {
  return {.model_dir = folder.model(),
          .load_format = LoadFormat::kDummy,
          .dummy_weights = DummyWeights::kFp8,
          .device = device,
          .gpu_memory_fraction = 0.2f,
          .num_threads = 2,
          .max_batch_size = 16,
          .max_context = 256,
          .kv_cache_bytes = size_t{64} << 20,
          .kv_block_size = kBlock,
          .prefix_caching = false,
          .max_adapters = kContents,
          .max_lora_rank = 32,
          .adapter_device_bytes = size_t{256} << 20};
}

// A GPU holds keys and values in BF16, the CPU back end in float.
size_t kv_block_bytes(Device device) {
  return size_t{2} * kLayers * kBlock * kKvHeads * kHeadDim * (device == Device::kCuda ? 2 : 4);
}

struct Sizes {
  size_t largest = 0;  // adapter, bytes
  size_t all = 0;
};

EngineConfig short_of_everything(const Folder& folder, Device device, const Sizes& adapters) {
  EngineConfig config = roomy(folder, device);
  config.max_batch_tokens = 48;
  config.kv_cache_bytes = 36 * kv_block_bytes(device);
  config.prefix_caching = true;
  config.max_adapters = 4;
  config.adapter_host_bytes = std::max(adapters.all / 2, 2 * adapters.largest);
  config.adapter_device_bytes = 2 * adapters.largest;
  return config;
}

// Runs every case alone, one after the other, and says how large the adapters are.
Sizes answer(const Folder& folder, Device device, std::vector<Case>& cases) {
  auto opened = Engine::open(roomy(folder, device));
  if (!opened) throw InternalError(opened.error().message);
  Engine& engine = **opened;
  Sizes sizes;
  std::vector<AdapterId> ids;
  for (int content = 0; content < kContents; ++content) {
    const auto id = engine.add_adapter(std::to_string(content), folder.adapter(content));
    if (!id) throw InternalError(id.error().message);
    ids.push_back(*id);
    const size_t bytes = engine.adapter_bytes(*id).value();
    sizes.largest = std::max(sizes.largest, bytes);
    sizes.all += bytes;
  }
  for (Case& c : cases) {
    for (const int content : contents_of(c.name)) {
      Replies replies;
      const auto accepted = engine.submit(
          {.prompt = c.prompt,
           .adapter = content == kBase ? AdapterId::kBase : ids[static_cast<size_t>(content)],
           .sampling = c.sampling},
          replies.add().first);
      if (!accepted) throw InternalError(accepted.error().message);
      engine.wait_until_idle();
      c.answer_of_content[content] = replies.at(0);
    }
  }
  return sizes;
}

// The engine under load.
class Load {
 public:
  Load(const SoakOptions& options, const Folder& folder, const std::vector<Case>& cases,
       const Sizes& adapters)
      : options_(options),
        folder_(folder),
        cases_(cases),
        config_(short_of_everything(folder, options.device, adapters)) {
    auto opened = Engine::open(config_);
    if (!opened) throw InternalError(opened.error().message);
    engine_ = std::move(*opened);
    for (int name = 0; name < kNames; ++name) {
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
    const Case* what = nullptr;
    bool is_cancelled = false;  // at some time, which may have been too late
  };

  void fault(const std::string& what) {
    const std::lock_guard lock(mutex_);
    if (report_.faults.size() < 10) report_.faults.push_back(what);
  }

  // Nothing where the adapter is gone just now.
  std::optional<AdapterId> adapter_of(const Case& c) const {
    if (c.name == kBase) return AdapterId::kBase;
    return engine_->find_adapter(name_of(c.name));
  }

  // Submits a case; it is cancelled when it has that many tokens, if it gets there.
  Result<RequestId> submit(const Case& c, AdapterId adapter, std::optional<int32_t> cancel_at) {
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
      const Case& c = cases_[below(cases_.size())];
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
    int content_of_swapped = kContents - 2;
    while (!stops_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(below(10)));
      const int name = static_cast<int>(below(kNames));
      const auto content = [&] { return name == kSwapped ? content_of_swapped : name; };
      const auto id = engine_->find_adapter(name_of(name));
      if (!id) {
        fault(name_of(name) + " is gone");
        return;
      }
      ++num_adapter_changes_;
      Status done;
      switch (name == kSwapped ? 0 : below(3)) {
        case 0: {  // replaced, the last name by its other content
          if (name == kSwapped) content_of_swapped ^= (kContents - 2) ^ (kContents - 1);
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
                           num_adapter_changes_ >= kNames;
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
    for (const Case& c : cases_) {
      if (c.name != kBase) continue;
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
  const Folder& folder_;
  const std::vector<Case>& cases_;
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
  const Folder folder(options.architecture);
  std::vector<Case> cases = make_cases(options.num_cases, options.seed);
  const Sizes sizes = answer(folder, options.device, cases);
  return Load(options, folder, cases, sizes).run();
}

}  // namespace braid::test

#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/backend.h"

namespace braid::test {

// A back end without a model: every request gets the text " tok" a step until its max_tokens. Text
// is one token a byte. Counts what is under way, so that leaks show.
class NullBackend : public server::Backend {
 public:
  // `step`: time between steps; 0: as fast as they go.
  explicit NullBackend(std::chrono::microseconds step, std::vector<std::string> adapters = {});
  ~NullBackend() override;

  int32_t num_active() const;

  Result<std::vector<int32_t>> tokenize(std::string_view text,
                                        bool add_special_tokens) const override;
  Result<std::string> detokenize(std::span<const int32_t> tokens,
                                 bool skip_special_tokens) const override;
  // Each message as "role:content\n", then the options.
  Result<std::vector<int32_t>> apply_chat_template(std::string_view messages_json,
                                                   std::string_view options_json) const override;
  std::string token_bytes(int32_t token) const override;
  int32_t max_context() const override { return 1 << 20; }
  int32_t vocab_size() const override { return 256; }

  void set_on_events(OnEvents on_events) override;
  Result<RequestId> submit(Request request) override;
  void cancel(RequestId id) override;
  EngineStats stats() const override;
  SamplingParams default_sampling() const override { return {.temperature = 0.75f}; }
  Status prepare_grammar(const OutputGrammar&) override { return {}; }
  void flush_prefix_cache() override {}

  std::optional<AdapterId> find_adapter(std::string_view name) const override;
  Result<AdapterId> resolve_adapter(std::string_view name) override;
  Result<AdapterId> add_adapter(std::string name, const std::filesystem::path& folder,
                                const AdapterOptions& options) override;
  Result<AdapterId> add_adapter_bytes(std::string name, const AdapterBytes& bytes,
                                      const AdapterOptions& options) override;
  Status pin_adapter(AdapterId id, bool pinned) override;
  Status remove_adapter(AdapterId id) override;
  std::vector<AdapterInfo> adapters() const override;
  Result<AdapterInfo> adapter(AdapterId id) const override;
  Result<AdapterReport> adapter_report(AdapterId id) const override;

 private:
  struct Active {
    Request request;
    int32_t num_generated = 0;
    bool is_cancelled = false;
    RequestTimes times;
  };

  void run();
  std::vector<server::Event> step();  // under mutex_

  const std::chrono::microseconds step_;
  const std::vector<std::string> adapters_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Active> active_;
  int64_t next_id_ = 0;
  bool stops_ = false;

  std::mutex on_events_mutex_;
  OnEvents on_events_;

  std::thread thread_;
};

}  // namespace braid::test

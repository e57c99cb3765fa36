#pragma once

#include <memory>
#include <mutex>

#include "server/backend.h"

namespace braid::server {

// Takes the events of an engine's steps to whoever wants them. Made before the engine, since the
// engine's config holds its on_step().
class StepRelay {
 public:
  OnStep on_step();
  void set(Backend::OnEvents on_events);

 private:
  std::mutex mutex_;
  Backend::OnEvents on_events_;  // under mutex_
};

// A braid::Engine whose config had relay.on_step(). Both must outlive it.
class EngineBackend : public Backend {
 public:
  EngineBackend(Engine& engine, StepRelay& relay) : engine_(engine), relay_(relay) {}

  Result<std::vector<int32_t>> tokenize(std::string_view text,
                                        bool add_special_tokens) const override;
  Result<std::string> detokenize(std::span<const int32_t> tokens,
                                 bool skip_special_tokens) const override;
  Result<std::vector<int32_t>> apply_chat_template(std::string_view messages_json,
                                                   std::string_view options_json) const override;
  std::string token_bytes(int32_t token) const override;
  int32_t max_context() const override { return engine_.max_context(); }
  int32_t vocab_size() const override { return engine_.vocab_size(); }

  void set_on_events(OnEvents on_events) override { relay_.set(std::move(on_events)); }
  Result<RequestId> submit(Request request) override { return engine_.submit(std::move(request)); }
  void cancel(RequestId id) override { engine_.cancel(id); }
  EngineStats stats() const override { return engine_.stats(); }
  SamplingParams default_sampling() const override { return engine_.default_sampling(); }
  Status prepare_grammar(const OutputGrammar& grammar) override {
    return engine_.prepare_grammar(grammar);
  }
  void flush_prefix_cache() override { engine_.flush_prefix_cache(); }

  std::optional<AdapterId> find_adapter(std::string_view name) const override {
    return engine_.find_adapter(name);
  }
  Result<AdapterId> resolve_adapter(std::string_view name) override {
    return engine_.resolve_adapter(name);
  }
  Result<AdapterId> add_adapter(std::string name, const std::filesystem::path& folder,
                                const AdapterOptions& options) override {
    return engine_.add_adapter(std::move(name), folder, options);
  }
  Result<AdapterId> add_adapter_bytes(std::string name, const AdapterBytes& bytes,
                                      const AdapterOptions& options) override {
    return engine_.add_adapter_bytes(std::move(name), bytes, options);
  }
  Status pin_adapter(AdapterId id, bool pinned) override { return engine_.pin_adapter(id, pinned); }
  Status remove_adapter(AdapterId id) override { return engine_.remove_adapter(id); }
  std::vector<AdapterInfo> adapters() const override { return engine_.adapters(); }
  Result<AdapterInfo> adapter(AdapterId id) const override { return engine_.adapter(id); }
  Result<AdapterReport> adapter_report(AdapterId id) const override {
    return engine_.adapter_report(id);
  }

 private:
  Engine& engine_;
  StepRelay& relay_;
};

}  // namespace braid::server

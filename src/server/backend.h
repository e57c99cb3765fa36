#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "braid/engine.h"
#include "braid/result.h"

namespace braid::server {

// A TokenEvent that owns what it holds; also the sum of several.
struct Event {
  uint64_t tag = 0;  // of the request
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<TokenLogprob> logprobs;
  std::vector<TokenLogprob> prompt_logprobs;
  bool finished = false;
  FinishReason reason = FinishReason::kStop;
  std::string matched_stop;
  std::string error;
  std::optional<ErrorCode> error_code;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t completion_tokens = 0;
  RequestTimes times;
};

// Adds what came next of the same request.
void append(Event& sum, Event next);

// The text side of a model. Every member may be called from any thread.
class TextModel {
 public:
  virtual ~TextModel() = default;

  virtual Result<std::vector<int32_t>> tokenize(std::string_view text,
                                                bool add_special_tokens) const = 0;
  virtual Result<std::string> detokenize(std::span<const int32_t> tokens,
                                         bool skip_special_tokens) const = 0;
  virtual Result<std::vector<int32_t>> apply_chat_template(std::string_view messages_json,
                                                           std::string_view options_json) const = 0;
  // Bytes that one token stands for, perhaps a part of a character; "" where there are none.
  virtual std::string token_bytes(int32_t token) const = 0;
  virtual int32_t max_context() const = 0;
  virtual int32_t vocab_size() const = 0;
};

// What the server needs of an engine; see include/braid/engine.h for what each member does. Members
// may be called from any thread. Those marked slow read files: never on the IO thread.
class Backend : public TextModel {
 public:
  // Called once a step, on a thread of the back end; must not block.
  using OnEvents = std::function<void(std::vector<Event>)>;
  // Before the first submit(). Empty: events are dropped from here on, and none is being delivered
  // when it returns.
  virtual void set_on_events(OnEvents on_events) = 0;

  virtual Result<RequestId> submit(Request request) = 0;
  virtual void cancel(RequestId id) = 0;
  virtual EngineStats stats() const = 0;
  virtual SamplingParams default_sampling() const = 0;
  // Works a grammar out beforehand, so that submit() with it is quick.
  virtual Status prepare_grammar(const OutputGrammar& grammar) = 0;  // slow
  // Forgets what prompts left in the KV cache.
  virtual void flush_prefix_cache() = 0;

  virtual std::optional<AdapterId> find_adapter(std::string_view name) const = 0;
  virtual Result<AdapterId> resolve_adapter(std::string_view name) = 0;  // slow
  virtual Result<AdapterId> add_adapter(std::string name, const std::filesystem::path& folder,
                                        const AdapterOptions& options) = 0;  // slow
  virtual Result<AdapterId> add_adapter_bytes(std::string name, const AdapterBytes& bytes,
                                              const AdapterOptions& options) = 0;  // slow
  virtual Status pin_adapter(AdapterId id, bool pinned) = 0;                       // slow
  virtual Status remove_adapter(AdapterId id) = 0;
  virtual std::vector<AdapterInfo> adapters() const = 0;
  virtual Result<AdapterInfo> adapter(AdapterId id) const = 0;
  virtual Result<AdapterReport> adapter_report(AdapterId id) const = 0;
};

}  // namespace braid::server

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "braid/adapter.h"
#include "braid/adapter_report.h"
#include "braid/operation_times.h"
#include "braid/output_grammar.h"
#include "braid/result.h"

namespace braid {

enum class RequestId : int64_t {};
enum class FinishReason { kStop, kLength, kCancelled, kError };

std::string_view name(FinishReason reason);

/// How tokens are picked. Defaults are the neutral values of the OpenAI and vLLM APIs; the model's
/// own generation_config.json is applied by Engine::default_sampling().
struct SamplingParams {
  float temperature = 1.0f;         ///< >= 0; 0 picks the most likely token
  int32_t top_k = 0;                ///< >= 0; 0 keeps all
  float top_p = 1.0f;               ///< (0, 1]
  float min_p = 0.0f;               ///< [0, 1], relative to the most likely token
  float repetition_penalty = 1.0f;  ///< > 0; on tokens of prompt and reply
  float presence_penalty = 0.0f;    ///< [-2, 2]; on tokens of the reply
  float frequency_penalty = 0.0f;   ///< [-2, 2]; on tokens of the reply
  int32_t max_tokens = 16;          ///< >= 1; generated tokens
  int32_t min_tokens = 0;           ///< [0, max_tokens]; no end before that many
  uint64_t seed = 0;                ///< of this request alone: others in the batch draw elsewhere
  bool ignore_eos = false;
  bool skip_special_tokens = true;      ///< control tokens are not part of the text
  std::vector<int32_t> stop_token_ids;  ///< end the reply; part of its tokens, not of its text
  std::vector<std::string> stop;        ///< end the reply; not part of its text
  std::vector<std::pair<int32_t, float>> logit_bias;  ///< token id, bias in [-100, 100]
  std::optional<int32_t> logprobs;  ///< top alternatives a token, [0, 20]; unset: none at all
  std::optional<int32_t> prompt_logprobs;  ///< the same for prompt tokens
  /// What the reply must look like: tokens that lead elsewhere are ruled out before one is picked.
  /// The model's end tokens are possible exactly where the reply may end, and it ends by itself
  /// where nothing can follow. max_tokens and stop strings may cut it before.
  std::optional<OutputGrammar> grammar;
};

struct Request {
  std::vector<int32_t> prompt;           ///< token ids, at least one
  AdapterId adapter = AdapterId::kBase;  ///< kBase: the base model alone
  SamplingParams sampling = {};
  int32_t priority = 0;  ///< higher first; low ones still get one start in eight
  uint64_t tag = 0;      ///< the caller's own, handed back in every event
};

/// When things happened to a request. Epoch: not yet.
struct RequestTimes {
  using Time = std::chrono::steady_clock::time_point;
  Time queued;       ///< accepted by submit()
  Time started;      ///< first left the queue
  Time first_token;  ///< end of the step that gave it
  Time last_token;   ///< end of the step that gave the newest one
};

/// log p of a token, and the most likely ones at its place, by falling log p. Natural logarithms of
/// the softmax of the model's logits, before temperature, penalties and bias.
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;
  int32_t rank = 0;  ///< 1: the most likely one
  std::vector<std::pair<int32_t, float>> top;
};

/// One piece of a reply. The last event of a request has `finished` set and comes exactly once,
/// also when the request was cancelled or failed. Spans and views are valid during the callback
/// only.
struct TokenEvent {
  RequestId request;
  uint64_t tag = 0;  ///< the request's
  std::span<const int32_t> tokens;
  std::string_view
      text;  ///< whole characters only; bytes that may become a stop string are held back
  std::span<const TokenLogprob> logprobs;  ///< one a token, where asked for
  std::span<const TokenLogprob>
      prompt_logprobs;  ///< on the first event, where asked for; one a token but the first
  bool finished = false;
  FinishReason reason = FinishReason::kStop;  ///< meaningful if finished
  std::string_view matched_stop;              ///< the stop string that ended the reply, if one did
  std::string_view error;                     ///< not empty iff reason == kError
  std::optional<ErrorCode> error_code;        ///< of an adapter that could not be read
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;      ///< of the prompt, taken from the prefix cache
  int32_t completion_tokens = 0;  ///< so far
  RequestTimes times;
};

using OnTokens = std::function<void(const TokenEvent&)>;

/// All events of one step, in order; they are valid during the call only.
using OnStep = std::function<void(std::span<const TokenEvent>)>;

enum class LoadFormat { kAuto, kDummy };
enum class DummyWeights { kBf16, kFp8, kNvfp4 };

/// What computes. kAuto takes a Hopper GPU where there is one that can run the model, else the CPU.
enum class Device { kAuto, kCpu, kCuda };

/// What activations are kept in between operations. kAuto is bfloat16 on a GPU, which has no other,
/// and float32 on a CPU; kBfloat16 on a CPU rounds them where a GPU's kernels do.
enum class ActivationDtype { kAuto, kFloat32, kBfloat16 };

struct EngineConfig {
  std::filesystem::path model_dir;
  LoadFormat load_format = LoadFormat::kAuto;
  DummyWeights dummy_weights = DummyWeights::kBf16;  ///< for kDummy
  uint64_t dummy_seed = 0;
  Device device = Device::kAuto;
  ActivationDtype activation_dtype = ActivationDtype::kAuto;
  float gpu_memory_fraction = 0.9f;  ///< of the GPU's memory that the engine may take, (0, 1]
  int32_t num_threads = 0;      ///< of the CPU back end; 0: one for each core this process may use
  int32_t max_batch_size = 64;  ///< requests that run at the same time
  int32_t max_batch_tokens = 512;      ///< tokens of one step: decodes first, then prefill chunks
  int32_t max_queued_requests = 1024;  ///< beyond that submit() says kResourceExhausted
  int32_t max_context =
      0;  ///< tokens of prompt and reply; 0: the model's own limit, capped by the cache
  size_t kv_cache_bytes = 0;  ///< 0: on a GPU what gpu_memory_fraction leaves, else 1 GiB
  int32_t kv_block_size = 16;
  bool prefix_caching = true;
  int32_t max_adapters = 64;  ///< adapter slots: different adapters in one step
  int32_t max_lora_rank = 256;
  int32_t max_running_per_adapter = 0;  ///< requests; 0: no limit. The base has none
  size_t adapter_host_bytes = 0;        ///< of factors in host memory; 0: no limit
  size_t adapter_device_bytes = 0;      ///< of factors on a GPU; 0: a tenth of its memory
  std::filesystem::path adapter_root;   ///< "" or the folder that strangers may load from
  OnStep on_step;  ///< hears of requests without an OnTokens of their own; must not throw
  std::function<void(std::string_view what, int64_t done, int64_t total)>
      on_progress;  ///< while open() works
};

struct EngineStats {
  int64_t steps = 0;
  double step_seconds = 0.0;       ///< spent in steps
  double device_seconds = 0.0;     ///< of these, that a GPU worked; 0 on the CPU
  OperationTimes operation_times;  ///< of the steps that time_operations() asked for
  int32_t last_step_tokens = 0;    ///< of the newest step
  int64_t prompt_tokens = 0;       ///< computed, without cached ones
  int64_t cached_tokens = 0;       ///< taken from the prefix cache
  int64_t generated_tokens = 0;
  int64_t preemptions = 0;
  int32_t running = 0;
  int32_t queued = 0;            ///< accepted and not running
  int32_t kv_blocks_used = 0;    ///< held by running requests
  int32_t kv_blocks_cached = 0;  ///< free to take, kept for prefix hits
  int32_t kv_blocks_total = 0;
  AdapterCounts base;                  ///< requests without an adapter
  int32_t adapter_slots_used = 0;      ///< hold an adapter
  int32_t adapter_slots_total = 0;     ///< EngineConfig::max_adapters
  int64_t adapter_swaps = 0;           ///< adapters that came into a slot
  int64_t adapter_slot_evictions = 0;  ///< of others, that made room for them
  int64_t adapter_copied_bytes = 0;    ///< of factors that came into slots of a GPU
  size_t adapter_host_bytes = 0;  ///< factors in host memory, also of versions that only run out
  int64_t adapter_loads = 0;      ///< that succeeded, first ones, replacements and rereads
  int64_t adapter_failed_loads = 0;
  int64_t adapter_evictions = 0;
  double adapter_load_seconds = 0.0;  ///< of those that succeeded
};

/// A base model, the adapters registered with it, and the loop that serves requests.
///
///     auto engine = braid::Engine::open({.model_dir = "model"});
///     if (!engine) return fail(engine.error().message);
///     auto sql = (*engine)->add_adapter("sql", "adapters/sql");
///     (*engine)->submit({.prompt = ids, .adapter = *sql}, print_tokens);
///
/// Threads: every member may be called from any thread. Callbacks run on the engine's own thread
/// and must not block or call back into the engine, but for submit() and cancel().
class Engine {
 public:
  /// Maps the checkpoint, prepares its weights and sizes the KV cache.
  ///
  /// Errors  kNotFound           no checkpoint in model_dir
  ///         kUnsupported        architecture or weight format unknown to this build
  ///         kCorrupt            a tensor is missing or has another shape than the config implies
  ///         kInvalidArgument    an option out of range
  ///         kResourceExhausted  the KV cache does not hold one block, or the GPU not the model
  static Result<std::unique_ptr<Engine>> open(const EngineConfig& config);

  /// Reads a PEFT LoRA folder into host memory and registers it under a name. Reading and checking
  /// happen beside the engine's thread: no request waits for it. A load that fails changes nothing.
  /// With a mode that replaces, the id stays: requests submitted from then on get the new content,
  /// earlier ones finish on the old. What is odd but no error (all-zero deltas, a base model of
  /// another name) is in adapter_report(); show its warnings to whoever asked for the adapter.
  ///
  /// Errors  kNotFound (folder; with kReplace also the name)  kCorrupt  kUnsupported  kIo
  ///         kInvalidArgument (a name that is taken, empty, over 256 bytes or has control
  ///         characters; rank above config.max_lora_rank; a target module the base model lacks;
  ///         options.confined and a folder outside config.adapter_root)
  ///         kResourceExhausted (config.adapter_host_bytes does not hold it beside what must stay)
  Result<AdapterId> add_adapter(std::string name, const std::filesystem::path& dir,
                                const AdapterOptions& options = {});

  /// The same from memory, without a file. There is nothing to read such an adapter from again, so
  /// it stays in host memory until it is removed or replaced.
  Result<AdapterId> add_adapter_bytes(std::string name, const AdapterBytes& bytes,
                                      const AdapterOptions& options = {});

  /// The adapter of that name; if there is none, and config.adapter_root has a sub-folder of that
  /// name ("sql", "team/sql") with an adapter_config.json, registers it. Reads no weights: the
  /// first request waits for them in the queue, and ends with kError if they are no good; the name
  /// is then forgotten again.
  ///
  /// Errors  kNotFound
  Result<AdapterId> resolve_adapter(std::string_view name);

  /// Pinned adapters are never evicted from host memory. Pinning reads it back if needed.
  ///
  /// Errors  kNotFound  and those of add_adapter
  Status pin_adapter(AdapterId id, bool pinned);

  /// Every registered adapter, by name.
  std::vector<AdapterInfo> adapters() const;

  /// Errors  kNotFound
  Result<AdapterInfo> adapter(AdapterId id) const;

  /// How an adapter was read and what to be wary of.
  ///
  /// Errors  kNotFound (no such adapter; the base model has no report)
  Result<AdapterReport> adapter_report(AdapterId id) const;

  /// Forgets an adapter. Requests already submitted with it finish; new ones get kNotFound.
  Status remove_adapter(AdapterId id);

  /// The adapter registered under a name.
  std::optional<AdapterId> find_adapter(std::string_view name) const;

  /// Queues a request. Whatever happens to it later, on_tokens hears of it: a request is never
  /// dropped in silence.
  ///
  /// Errors  kInvalidArgument (empty prompt, a token id outside the vocabulary, prompt + max_tokens
  ///         over the context length, a sampling value out of range, a grammar that makes no sense)
  ///         kNotFound (adapter)  kUnsupported (a construct of the grammar)  kResourceExhausted
  ///         (queue full)
  Result<RequestId> submit(Request request, OnTokens on_tokens);

  /// The same with config.on_step in place of a callback: all events of a step come in one call.
  Result<RequestId> submit(Request request);

  /// Works out a grammar and keeps it for a while, so that submit() with it need not. For callers
  /// whose thread must not be held up: a large schema takes milliseconds.
  ///
  /// Errors  kInvalidArgument  kUnsupported  as submit()
  Status prepare_grammar(const OutputGrammar& grammar);

  /// Stops a request; its last event has reason kCancelled. Unknown or finished ids are ignored.
  void cancel(RequestId id);

  /// Returns when no request is queued or running.
  void wait_until_idle();

  EngineStats stats() const;

  /// On a GPU, from the next step on, until it is called with false: times each operation of a step
  /// apart, in stats().operation_times. Such steps give the same tokens and take longer: launches
  /// of one operation do not overlap those of the one before. Also from callbacks. The CPU back end
  /// times nothing.
  void time_operations(bool on);

  /// The model's generation_config.json over the neutral defaults (temperature, top_k, top_p,
  /// min_p, repetition_penalty); its end tokens always apply unless ignore_eos.
  SamplingParams default_sampling() const;

  /// Forgets what ended requests left in the KV cache, before the next step. What running requests
  /// hold stays theirs.
  void flush_prefix_cache();

  /// What computes, for people: "NVIDIA H200"; or the CPU's name and threads, and, where there is a
  /// GPU, why not that.
  const std::string& device() const;

  int32_t max_context() const;
  int32_t vocab_size() const;

  /// Registers an adapter with random factors of one rank on every module an adapter can sit on:
  /// what LoadFormat::kDummy is for weights. For benchmarks.
  ///
  /// Errors  kInvalidArgument (name taken or empty; rank outside [1, config.max_lora_rank])
  Result<AdapterId> add_dummy_adapter(std::string name, int32_t rank, uint64_t seed);

  /// Least bytes a decode step must read from memory when its tokens run on these adapters (one
  /// entry a token): every weight outside the experts once, the experts that uniform routing
  /// touches on average, and likewise each adapter's factors; and the keys and values of sequences
  /// of context_len tokens.
  size_t decode_step_bytes(std::span<const AdapterId> adapter_of_token, int32_t context_len) const;

  /// Bytes a second this machine reads from memory with the engine's threads, measured now on a
  /// buffer far larger than its caches. Takes about a second; call it while the engine is idle.
  double measure_read_rate();

  /// Bytes of the adapter's factors as they are held.
  Result<size_t> adapter_bytes(AdapterId id) const;

  /// Text side of the model. kUnsupported where the folder has no tokenizer or chat template.
  Result<std::vector<int32_t>> tokenize(std::string_view text,
                                        bool add_special_tokens = true) const;
  Result<std::string> detokenize(std::span<const int32_t> tokens,
                                 bool skip_special_tokens = true) const;

  /// Bytes that a token stands for, perhaps a part of a character; empty where there are none or no
  /// tokenizer. Valid while the engine lives.
  std::string_view token_bytes(int32_t token) const;

  /// Renders messages with the model's chat template and tokenizes the result. `messages_json` is
  /// an array of {"role", "content", ...} as in the OpenAI API; `options_json` an object with
  /// "tools", "add_generation_prompt" (default true), "continue_final_message" (the prompt ends
  /// with the content of the last message, which the reply goes on with) and template variables
  /// such as "enable_thinking".
  Result<std::vector<int32_t>> apply_chat_template(std::string_view messages_json,
                                                   std::string_view options_json = "{}") const;

  /// Cancels what runs (last events included) and stops the engine's thread.
  ~Engine();

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace braid

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "adapter/adapter_lease.h"
#include "base/ids.h"
#include "braid/engine.h"
#include "engine/sampler.h"
#include "engine/stop_matcher.h"
#include "engine/token_text.h"
#include "grammar/grammar.h"
#include "kv/prefix_cache.h"

namespace braid {

// One accepted request from submit() to its last event. Stays at one address: parts of it point to
// its sampling parameters. After submit() it belongs to the engine's thread.
struct RequestState {
  // `end_tokens`: the model's end tokens, already empty if the request ignores them.
  RequestState(RequestId request_id, Request request, AdapterLease adapter_lease,
               std::shared_ptr<AdapterCounters> adapter_counters,
               std::vector<int32_t> model_end_tokens,
               std::optional<grammar::Matcher> output_matcher,
               std::unique_ptr<TokenText> token_text, OnTokens callback)
      : id(request_id),
        tag(request.tag),
        priority(request.priority),
        adapter_id(request.adapter),
        sampling(std::move(request.sampling)),
        lease(std::move(adapter_lease)),
        share(lease.share()),
        counters(std::move(adapter_counters)),
        on_tokens(std::move(callback)),
        end_tokens(std::move(model_end_tokens)),
        tokens(std::move(request.prompt)),
        num_prompt(static_cast<int32_t>(tokens.size())),
        matcher(std::move(output_matcher)),
        sampler(sampling, tokens, end_tokens, matcher ? &*matcher : nullptr),
        text(std::move(token_text)),
        stops(sampling.stop) {
    ++counters->requests;
    ++counters->unfinished;
  }
  RequestState(const RequestState&) = delete;
  RequestState& operator=(const RequestState&) = delete;
  ~RequestState() {
    set_running(false);
    --counters->unfinished;
  }

  // The lease's adapter, which is no longer loading; before anything is computed.
  void set_adapter(std::shared_ptr<const Adapter> loaded) {
    adapter = std::move(loaded);
    if (adapter) owner = {.is_adapter = true, .high = adapter->hash.high, .low = adapter->hash.low};
  }

  void set_running(bool runs) {
    if (runs != is_running) counters->running += runs ? 1 : -1;
    is_running = runs;
  }

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_generated() const { return num_tokens() - num_prompt; }
  int32_t num_remaining() const { return num_tokens() - num_computed; }

  // Prompt log probabilities still to compute; entry i, of token i + 1, comes from position i.
  bool needs_prompt_logprobs() const {
    return sampling.prompt_logprobs &&
           static_cast<int32_t>(prompt_logprobs.size()) < num_prompt - 1;
  }

  // The request is as if none of its tokens had been computed.
  void forget_computed() {
    blocks.clear();
    num_computed = 0;
    num_registered = 0;
    last_node = PrefixCache::kRoot;
  }

  // What was asked.
  const RequestId id;  // rises with arrival
  const uint64_t tag;
  const int32_t priority;
  const AdapterId adapter_id;  // whose share it takes from
  const SamplingParams sampling;
  const AdapterLease lease;
  float share;                                      // of its adapter beside others
  const std::shared_ptr<AdapterCounters> counters;  // of the adapter or the base; lives longer
  std::shared_ptr<const Adapter> adapter;           // null: the base model alone, or not loaded yet
  PrefixOwner owner;
  OnTokens on_tokens;                     // empty: its events go to the engine's on_step
  const std::vector<int32_t> end_tokens;  // the model's and the request's

  // How far it is.
  std::vector<int32_t> tokens;  // prompt, then reply
  const int32_t num_prompt;
  int32_t num_computed = 0;     // tokens whose keys and values are in `blocks`
  std::vector<int32_t> blocks;  // KV blocks held, in order
  int32_t num_registered = 0;   // of them, known to the prefix cache
  PrefixCache::NodeId last_node = PrefixCache::kRoot;
  int32_t adapter_slot = kNoAdapter;
  bool has_started = false;  // was admitted once
  bool is_running = false;
  bool has_sent_event = false;
  RequestTimes times;
  int32_t num_cached_prompt = 0;  // prompt tokens from the prefix cache when first admitted

  std::optional<grammar::Matcher> matcher;  // where the reply stands in its grammar
  Sampler sampler;                          // reads the matcher
  std::unique_ptr<TokenText> text;          // null without a tokenizer
  StopMatcher stops;
  std::vector<TokenLogprob> prompt_logprobs;
};

}  // namespace braid

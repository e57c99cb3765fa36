#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "braid/engine.h"
#include "grammar/grammar.h"
#include "model/runner.h"

namespace braid {

// Picks the tokens of one request. The result depends on the request's own parameters, its own
// tokens and the row of logits alone: not on time, on threads, or on other requests.
//
// Order: logit_bias; repetition penalty over prompt and reply; presence and frequency penalty over
// the reply; a grammar rules out what it does not allow, end tokens where it may not end; until
// min_tokens the end tokens are ruled out, if that leaves any; temperature 0 takes the largest
// (lowest id of equals); else temperature, top_k, top_p, min_p, and a Philox draw keyed by the seed
// with the token's position as counter. top_k keeps all tokens that equal the k-th; top_p keeps the
// least number of most likely tokens whose sum reaches it (equals by rising id).
class Sampler {
 public:
  // `params` must outlive the sampler and be valid (why_invalid below). end_tokens: what min_tokens
  // rules out. `matcher`, which may be null, outlives the sampler and is moved on by its owner.
  Sampler(const SamplingParams& params, std::span<const int32_t> prompt,
          std::span<const int32_t> end_tokens, grammar::Matcher* matcher = nullptr);

  struct Sample {
    int32_t token = 0;
    std::optional<TokenLogprob> logprob;  // where params.logprobs is set
  };

  // The token at `position` (tokens of prompt and reply before it), after num_generated tokens of
  // the reply. `logits` [vocab_size] are changed while it runs and restored before it returns.
  //
  // Errors  kCorrupt            a NaN among the logits, or no finite maximum
  //         kResourceExhausted  the grammar is too ambiguous (grammar::Matcher::mask)
  Result<Sample> sample(std::span<float> logits, int64_t position, int32_t num_generated);

  // How a device may pick that token in place of sample(), where it is asked for nothing else.
  Pick pick_on_device(int64_t position, int32_t num_generated) const;

  // Counts a token of the reply for the penalties.
  void count(int32_t token);

 private:
  struct Seen {
    bool in_prompt = false;
    int32_t in_reply = 0;
  };
  struct Candidate {
    int32_t token;
    float logit;
    double weight;
  };

  void set_logit(std::span<float> logits, int32_t token, float value);
  // Undoes all but the first changes.
  void restore(std::span<float> logits, size_t num_changes);
  void change_logits(std::span<float> logits);
  void apply(const grammar::Mask& mask, std::span<float> logits) const;
  void rule_out_end(std::span<float> logits);
  int32_t pick(std::span<const float> logits, int64_t position);
  int32_t draw(std::span<const float> logits, float largest, int64_t position);

  const SamplingParams& params_;
  bool has_penalties_;
  std::vector<int32_t> end_tokens_;
  grammar::Matcher* matcher_;
  std::unordered_map<int32_t, Seen> seen_;            // empty without penalties
  std::vector<std::pair<int32_t, float>> originals_;  // logits to restore, last change last
  std::vector<Candidate> candidates_;
  std::vector<float> scratch_;
  std::vector<float> masked_;  // a copy of the logits where there is a grammar
};

// Empty when a distribution can be made of logits, otherwise one sentence that says why not: NaN
// among them, or no finite maximum. `position` is for the sentence.
std::string why_unusable(std::span<const float> logits, int64_t position);

// Empty when the engine can serve params on a model of vocab_size tokens, otherwise one sentence
// naming the field, its value and what would be accepted.
std::string why_invalid(const SamplingParams& params, int32_t vocab_size);

}  // namespace braid

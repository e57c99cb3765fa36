#pragma once

#include "kernels/sampling/run.cuh"
#include "kernels/sampling/sampling.h"

namespace braid::kernels::sampling {

__device__ __forceinline__ bool changes_logits(const SamplingRow& asked) {
  return asked.num_logit_bias > 0 || asked.penalty_slot >= 0 || asked.mask != nullptr ||
         asked.rules_out_end;
}

template <class Run>
__device__ __forceinline__ void add_bias(Run& run, const SamplingRow& asked) {
  for (int i = lane_index(); i < asked.num_logit_bias; i += 32) {
    const int token = asked.logit_bias[i].token;
    if (!run.has(token) || (i > 0 && asked.logit_bias[i - 1].token == token)) continue;
    // The first of a token's entries adds all of them, in their order.
    float logit = run.logit(token);
    for (int j = i; j < asked.num_logit_bias && asked.logit_bias[j].token == token; ++j)
      logit += asked.logit_bias[j].bias;
    run.logit(token) = logit;
  }
  __syncwarp();
}

// Operations are rounded one by one, as on the host.
template <class Run>
__device__ __forceinline__ void apply_penalties(Run& run, const SamplingRow& asked,
                                                const uint32_t* seen_by_slot) {
  const uint32_t* const seen = seen_by_slot + int64_t{asked.penalty_slot} * run.vocab_size();
  const float repetition = asked.repetition_penalty, presence = asked.presence_penalty,
              frequency = asked.frequency_penalty;
  const int end = min(run.end_id(), run.vocab_size());
#pragma unroll 4
  for (int id = run.first_id() + lane_index(); id < end; id += 32) {
    const uint32_t count = __ldcg(seen + id);
    if (count == 0) continue;
    float x = run.logit(id);
    x = x > 0 ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
    if (const uint32_t in_reply = count & ~kSeenInPrompt; in_reply > 0) {
      x = __fsub_rn(x, presence);
      x = __fsub_rn(x, __fmul_rn(frequency, static_cast<float>(in_reply)));
    }
    run.logit(id) = x;
  }
  __syncwarp();
}

__device__ __forceinline__ bool is_end_token(const SamplingRow& asked, int id) {
  for (int i = 0; i < asked.num_end_tokens; ++i) {
    if (asked.end_tokens[i] == id) return true;
  }
  return false;
}

// Bias, penalties, mask and min_tokens, in this order. A call, because rows seldom need it and many
// places load runs.
template <class Run>
__device__ __noinline__ void change_logits(Run run, const SamplingRow& asked, const uint32_t* seen,
                                           bool rules_out_end) {
  if (asked.num_logit_bias > 0) add_bias(run, asked);
  if (asked.penalty_slot >= 0) apply_penalties(run, asked, seen);
  if (asked.mask != nullptr) {
    run.change([&](float x, int id) {
      if (id >= run.vocab_size() || (asked.mask[id / 64] >> (id % 64) & 1u) != 0) return x;
      return asked.may_end && is_end_token(asked, id) ? x : -INFINITY;
    });
  }
  if (rules_out_end) {
    for (int i = lane_index(); i < asked.num_end_tokens; i += 32) {
      if (run.has(asked.end_tokens[i])) run.logit(asked.end_tokens[i]) = -INFINITY;
    }
    __syncwarp();
  }
}

}  // namespace braid::kernels::sampling

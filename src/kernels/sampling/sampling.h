#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/cuda_fwd.h"

namespace braid::kernels {

// Picks one token a row of logits on the device: what engine/sampler.h does on the host, in the
// same order and with the same ties. docs/kernels/sampling.md has the pictures.
//
// Made for an engine that builds step n + 1 while the device runs step n. What a row needs is known
// before the newest token is (its position, whether min_tokens still holds) or stays on the device:
// the newest token itself and the counts of the penalties, which this kernel keeps. Only a
// grammar's mask has to wait for the token before it.
//
// Against the host. Weights exp((logit - largest) / temperature) are computed in double and rounded
// to multiples of 2^-45 (the largest weight is 1); the weight of all tokens is summed up in double,
// in an order that follows from V, and rounded likewise. What is summed after that are integers. A
// result differs from the host's only where u * total, top_p * total or min_p lies within that
// rounding of a boundary between two tokens. A row's result is a function of the row alone: not of
// other rows, of their number, or of timing.
//
// L rows of logits, V vocab_size.

inline constexpr int32_t kMaxSamplingVocab = 262144;
inline constexpr size_t kScratchBytesPerRow = 6144;
inline constexpr uint32_t kSeenInPrompt = 0x80000000u;

enum class SamplingStatus : int32_t {
  kOk,
  kNan,              // a NaN among the logits
  kNoFiniteMaximum,  // all are -inf, or one is +inf
  kNoTokenLeft,      // bias, penalties, min_tokens and mask leave no possible token
};

struct LogitBias {
  int32_t token;  // [0, V)
  float bias;
};

// What is asked of one row; a row pays for what it asks. Pointers are to device memory that the
// engine owns and that stays as it is while the launch runs.
struct SamplingRow {
  bool samples = false;      // false: nothing; the row pads a graph, or its token is known
  float temperature = 1.0f;  // >= 0, finite; 0 takes the largest logit, the lowest id of equals
  int32_t top_k = 0;         // >= 0; 0 keeps all
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1]
  uint64_t seed = 0;
  int64_t position = 0;  // tokens of the request before this one: the counter of the draw

  // Penalties, over the counts of penalty_slot.
  float repetition_penalty = 1.0f;  // > 0, finite
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t penalty_slot = -1;  // of SampleParams::seen, of one row at most; -1: no penalties

  // Added first, in this order. Entries of a token stand together.
  const LogitBias* logit_bias = nullptr;  // [num_logit_bias]
  int32_t num_logit_bias = 0;

  int32_t num_end_tokens = 0;
  const int32_t* end_tokens = nullptr;  // [num_end_tokens], in [0, V)
  // Bit id % 64 of word id / 64: what a grammar allows. Null: everything.
  const uint64_t* mask = nullptr;  // [ceil(V / 64)]
  bool may_end = false;            // end tokens are possible whatever their bits
  // min_tokens is not reached: end tokens are ruled out, unless a mask leaves nothing else.
  bool rules_out_end = false;

  // Where the token goes in SampleParams::newest_token, a slot of this row alone; -1: nowhere.
  int32_t request_slot = -1;
};

struct SampledToken {
  int32_t token;          // 0 where status is not kOk
  SamplingStatus status;  // kOk, with token 0, where nothing was asked
};

struct SampleParams {
  const float* logits = nullptr;  // [L, V], rows logits_stride apart, 16-byte aligned
  int64_t logits_stride = 0;      // elements, multiple of 4, >= V; what lies between is not used
  const SamplingRow* rows = nullptr;  // [L]
  SampledToken* sampled = nullptr;    // [L]; every element is written
  // [request slots], or null where all rows have request_slot -1. The next step's embedding reads
  // it. Always a valid id, 0 where status is not kOk.
  int32_t* newest_token = nullptr;
  // [penalty slots, V], or null where all rows have penalty_slot -1. kSeenInPrompt: the token is in
  // the prompt; the other bits: how often it is in the reply. Picking a token counts it. Slots are
  // for requests with penalties only; launch_count_seen() fills one.
  uint32_t* seen = nullptr;
  void* scratch = nullptr;  // [L, kScratchBytesPerRow], 16-byte aligned, free before and after
  int32_t num_rows = 0;     // L, 0 launches nothing
  int32_t vocab_size = 0;   // V, 1 to kMaxSamplingVocab
};

// Fills a row of `seen` with the tokens of a request that starts, or starts again.
struct CountSeenParams {
  const int32_t* tokens = nullptr;  // [num_tokens], in [0, V): the prompt, then the reply so far
  int32_t num_prompt = 0;           // of them, the prompt's
  int32_t num_tokens = 0;
  uint32_t* seen = nullptr;  // [V], the slot's; every element is written
  int32_t vocab_size = 0;    // V
};

// Empty when the kernels can run p; otherwise one sentence naming the field and its value. Rows are
// trusted.
std::string why_unsupported(const SampleParams& p);
std::string why_unsupported(const CountSeenParams& p);

// Enqueue on stream, never synchronise, never allocate: safe under graph capture. launch_sample is
// two kernels. The rows may differ from replay to replay, their number may not. Throw InternalError
// if why_unsupported is not empty, CudaError if the launch is refused.
void launch_sample(const SampleParams& p, CudaStream stream);
void launch_count_seen(const CountSeenParams& p, CudaStream stream);

}  // namespace braid::kernels

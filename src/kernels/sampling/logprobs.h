#pragma once

#include <cstdint>
#include <string>

#include "base/cuda_fwd.h"
#include "kernels/sampling/sampling.h"

namespace braid::kernels {

// Log probabilities under the softmax of rows of logits, on the device: what engine/logprobs.h does
// on the host. They are of the logits as they are, before bias, penalties, mask and temperature.
//
// Sums are in double in an order that follows from the vocabulary's size, rounded to float once: a
// value may differ from the host's in the last bit. A row's result is a function of the row alone.
//
// L rows of logits, V vocab_size.

inline constexpr int32_t kMaxTopLogprobs = 20;

struct LogprobRow {
  int32_t num_top = -1;  // -1: nothing is asked; n: the n most likely tokens too, up to the limit
  int32_t token = -1;    // whose log probability, [0, V); -1: what was sampled from this row
};

struct RowLogprob {
  int32_t token;  // 0 where status is not kOk
  // kOk, with zeros, where nothing was asked; that of the sample where its token was.
  SamplingStatus status;
  float logprob;
  int32_t rank;  // 1 + number of larger logits
};

struct TopLogprob {
  int32_t token;
  float logprob;
};

struct LogprobParams {
  const float* logits = nullptr;          // [L, V], rows logits_stride apart, 16-byte aligned
  int64_t logits_stride = 0;              // elements, multiple of 4, >= V
  const LogprobRow* rows = nullptr;       // [L]
  const SampledToken* sampled = nullptr;  // [L], or null where all rows name their token
  RowLogprob* logprobs = nullptr;         // [L]; every element is written
  // [L, kMaxTopLogprobs], by falling logprob, equals by rising id. Of each row min(num_top, V) are
  // written where status is kOk. Null where no row asks for any.
  TopLogprob* top = nullptr;
  void* scratch = nullptr;  // [L, kScratchBytesPerRow], 16-byte aligned, free before and after
  int32_t num_rows = 0;     // L, 0 launches nothing
  int32_t vocab_size = 0;   // V, 1 to kMaxSamplingVocab
};

// Empty when the kernel can run p; otherwise one sentence naming the field and its value. Rows are
// trusted.
std::string why_unsupported(const LogprobParams& p);

// Enqueues on stream, never synchronises, never allocates: safe under graph capture. Throws
// InternalError if why_unsupported is not empty, CudaError if the launch is refused.
void launch_logprobs(const LogprobParams& p, CudaStream stream);

}  // namespace braid::kernels

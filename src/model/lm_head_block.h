#pragma once

#include <vector>

#include "base/aligned.h"
#include "checkpoint/model_config.h"
#include "model/layer_weights.h"
#include "model/step.h"

namespace braid {

// The two ends of a decoder: the embedding of the step's tokens, and the final norm and lm_head of
// the rows whose logits are wanted. Adapters may sit on both tables; on a tied model they stay two
// modules, each with its own factors.
class LmHeadBlock {
 public:
  explicit LmHeadBlock(const ModelConfig& config) : config_(config) {}

  // out: [T, hidden_size]
  void embed(const Step& step, const DecoderWeights& weights, float* out);

  // The last layer's output is residual + delta, [T, hidden_size] each. out: [L, vocab_size], one
  // row for each of batch.logits_token.
  void run(const Step& step, const DecoderWeights& weights, const float* residual,
           const float* delta, float* out);

 private:
  ModelConfig config_;
  AlignedVector<float> residual_, delta_, normed_;  // [L, hidden_size]
  AlignedVector<int32_t> adapter_slot_of_row_;      // [L]
};

}  // namespace braid

#pragma once

#include <vector>

#include "base/aligned.h"
#include "checkpoint/model_config.h"
#include "model/layer_weights.h"
#include "model/step.h"

namespace braid {

// Grouped-query attention over the paged cache: q, k and v projections, an RMSNorm over each head
// of q and k where the weights have one, rotary positions over the whole head, attention, output
// projection. Adapters may sit on all four projections.
class AttentionBlock {
 public:
  explicit AttentionBlock(const ModelConfig& config);

  // x and out are [T, hidden_size]; they may not overlap. Writes the step's keys and values of
  // this layer into the cache.
  void run(const Step& step, const AttentionWeights& weights, int32_t layer, const float* x,
           float* out);

 private:
  ModelConfig config_;
  std::vector<float> inv_freq_;     // [head_dim / 2]
  AlignedVector<float> q_, k_, v_;  // [T, heads * head_dim]
  AlignedVector<float> attended_;   // [T, num_attention_heads * head_dim]
};

}  // namespace braid

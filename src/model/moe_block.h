#pragma once

#include <vector>

#include "base/aligned.h"
#include "checkpoint/model_config.h"
#include "model/layer_weights.h"
#include "model/step.h"

namespace braid {

// A mixture of SwiGLU experts behind a softmax router. Adapters may sit on the router and on all
// three matrices of every expert; a router's adapter changes which experts a token goes to.
class MoeBlock {
 public:
  explicit MoeBlock(const ModelConfig& config) : config_(config) {}

  // x and out are [T, hidden_size]; they may not overlap.
  void run(const Step& step, const MoeWeights& weights, int32_t layer, const float* x, float* out);

 private:
  ModelConfig config_;
  AlignedVector<float> router_logits_;  // [T, num_experts]
  AlignedVector<float> topk_weights_;   // [T, top_k]
  AlignedVector<int32_t> topk_ids_;     // [T, top_k]
};

}  // namespace braid

#pragma once

#include <vector>

#include "base/aligned.h"
#include "checkpoint/model_config.h"
#include "model/layer_weights.h"
#include "model/step.h"

namespace braid {

// A dense SwiGLU, for the layers of a mixture model that have no experts. Adapters may sit on all
// three projections.
class MlpBlock {
 public:
  explicit MlpBlock(const ModelConfig& config) : config_(config) {}

  // x and out are [T, hidden_size]; they may not overlap.
  void run(const Step& step, const MlpWeights& weights, int32_t layer, const float* x, float* out);

 private:
  ModelConfig config_;
  AlignedVector<float> gate_, up_;  // [T, intermediate_size]
};

}  // namespace braid

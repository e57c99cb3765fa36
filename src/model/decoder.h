#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/aligned.h"
#include "model/layer_weights.h"
#include "model/lm_head_block.h"
#include "model/model.h"
#include "model/step.h"

namespace braid {

// What decoder-only models share: the embedding, a stack of layers over one residual stream, the
// final norm and lm_head on the rows that are wanted. An architecture fills in its layer.
//
// Each half of a layer reads the norm of the residual and leaves its output in `delta`; the norm
// that follows adds it to the residual, so the stream is read and written once a half.
class Decoder : public Model {
 public:
  const ModelConfig& config() const override { return config_; }
  size_t step_bytes(int64_t num_tokens) const override;
  void forward(const ops::Context& context, const ForwardBatch& batch, const AdapterSlots* adapters,
               KvCache& kv, float* logits) override;
  void set_tap(Tap tap) override { tap_ = std::move(tap); }

 protected:
  // Activations of a step, [T, hidden_size] each.
  struct Activations {
    float* residual = nullptr;
    float* normed = nullptr;
    float* delta = nullptr;
  };

  Decoder(const ModelConfig& config, DecoderWeights weights);

  // One layer: from residual + delta of the layer before (delta not yet added, and absent in layer
  // 0) to the same of this layer.
  virtual void run_layer(const Step& step, int32_t layer, const Activations& x) = 0;

  // residual += delta where add_delta, then normed = its RMSNorm.
  void norm(const Step& step, const std::vector<float>& weight, bool add_delta,
            const Activations& x) const;

  // Hands a [num_tokens, hidden_size] tensor to whoever listens.
  void tap(const Step& step, int32_t layer, std::string_view what, const float* values) const;

  const LayerWeights& layer_weights(int32_t layer) const {
    return weights_.layers[static_cast<size_t>(layer)];
  }

 private:
  ModelConfig config_;
  DecoderWeights weights_;
  LmHeadBlock lm_head_block_;
  AlignedVector<float> residual_, normed_, delta_;  // [T, hidden_size]
  Tap tap_;
};

}  // namespace braid

#include "model/qwen3_moe.h"

#include <utility>

#include "base/check.h"
#include "model/attention_block.h"
#include "model/decoder.h"
#include "model/mlp_block.h"
#include "model/moe_block.h"

namespace braid {
namespace {

class Qwen3Moe final : public Decoder {
 public:
  Qwen3Moe(const ModelConfig& config, DecoderWeights weights)
      : Decoder(config, std::move(weights)), attention_(config), moe_(config), mlp_(config) {
    for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      BRAID_CHECK(!layer_weights(layer).attention.q_norm.empty());
      BRAID_CHECK(!layer_weights(layer).attention.k_norm.empty());
    }
  }

 private:
  void run_layer(const Step& step, int32_t layer, const Activations& x) override {
    const LayerWeights& weights = layer_weights(layer);
    norm(step, weights.input_norm, layer > 0, x);
    attention_.run(step, weights.attention, layer, x.normed, x.delta);
    tap(step, layer, "attention_out", x.delta);

    norm(step, weights.post_attention_norm, true, x);
    if (config().is_moe_layer[static_cast<size_t>(layer)]) {
      moe_.run(step, weights.moe, layer, x.normed, x.delta);
      tap(step, layer, "moe_out", x.delta);
    } else {
      mlp_.run(step, weights.mlp, layer, x.normed, x.delta);
      tap(step, layer, "mlp_out", x.delta);
    }
  }

  AttentionBlock attention_;
  MoeBlock moe_;
  MlpBlock mlp_;
};

}  // namespace

std::unique_ptr<Model> make_qwen3_moe(const ModelConfig& config, DecoderWeights weights) {
  return std::make_unique<Qwen3Moe>(config, std::move(weights));
}

}  // namespace braid

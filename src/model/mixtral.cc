#include "model/mixtral.h"

#include <utility>

#include "base/check.h"
#include "model/attention_block.h"
#include "model/decoder.h"
#include "model/moe_block.h"

namespace braid {
namespace {

class Mixtral final : public Decoder {
 public:
  Mixtral(const ModelConfig& config, DecoderWeights weights)
      : Decoder(config, std::move(weights)), attention_(config), moe_(config) {
    for (const bool is_moe : config.is_moe_layer) BRAID_CHECK(is_moe);
  }

 private:
  void run_layer(const Step& step, int32_t layer, const Activations& x) override {
    const LayerWeights& weights = layer_weights(layer);
    norm(step, weights.input_norm, layer > 0, x);
    attention_.run(step, weights.attention, layer, x.normed, x.delta);
    tap(step, layer, "attention_out", x.delta);

    norm(step, weights.post_attention_norm, true, x);
    moe_.run(step, weights.moe, layer, x.normed, x.delta);
    tap(step, layer, "moe_out", x.delta);
  }

  AttentionBlock attention_;
  MoeBlock moe_;
};

}  // namespace

std::unique_ptr<Model> make_mixtral(const ModelConfig& config, DecoderWeights weights) {
  return std::make_unique<Mixtral>(config, std::move(weights));
}

}  // namespace braid

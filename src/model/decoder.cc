#include "model/decoder.h"

#include <utility>

#include "base/check.h"
#include "batch/check_batch.h"
#include "model/buffer.h"
#include "model/step_bytes.h"
#include "ops/ops.h"

namespace braid {

Decoder::Decoder(const ModelConfig& config, DecoderWeights weights)
    : config_(config), weights_(std::move(weights)), lm_head_block_(config) {
  BRAID_CHECK_EQ(weights_.layers.size(), static_cast<size_t>(config_.num_hidden_layers));
}

size_t Decoder::step_bytes(int64_t num_tokens) const {
  return braid::step_bytes(config_, bytes_of(config_, weights_), num_tokens);
}

void Decoder::forward(const ops::Context& context, const ForwardBatch& batch,
                      const AdapterSlots* adapters, KvCache& kv, float* logits) {
  const std::string problem =
      why_malformed(batch, {.vocab_size = config_.vocab_size,
                            .num_adapter_slots = adapters == nullptr ? 0 : adapters->num_slots(),
                            .num_kv_blocks = kv.shape().num_blocks,
                            .kv_block_size = kv.shape().block_size});
  if (!problem.empty()) throw InternalError("forward batch: " + problem);
  if (batch.num_tokens() == 0) return;

  const Step step = make_step(context, batch, adapters, kv);
  const int64_t elements = int64_t{step.num_tokens()} * config_.hidden_size;
  const Activations x = {.residual = ensure(residual_, elements),
                         .normed = ensure(normed_, elements),
                         .delta = ensure(delta_, elements)};
  lm_head_block_.embed(step, weights_, x.residual);
  tap(step, -1, "embedding", x.residual);
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) run_layer(step, layer, x);
  lm_head_block_.run(step, weights_, x.residual, x.delta, logits);
}

void Decoder::norm(const Step& step, const std::vector<float>& weight, bool add_delta,
                   const Activations& x) const {
  ops::rms_norm(step.context, {.residual = x.residual,
                               .delta = add_delta ? x.delta : nullptr,
                               .weight = weight.data(),
                               .y = x.normed,
                               .num_tokens = step.num_tokens(),
                               .hidden_size = config_.hidden_size,
                               .eps = config_.rms_norm_eps});
}

void Decoder::tap(const Step& step, int32_t layer, std::string_view what,
                  const float* values) const {
  if (!tap_) return;
  const auto size =
      static_cast<size_t>(step.num_tokens()) * static_cast<size_t>(config_.hidden_size);
  tap_(layer, what, {values, size}, config_.hidden_size);
}

}  // namespace braid

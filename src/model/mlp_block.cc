#include "model/mlp_block.h"

#include <array>

#include "model/buffer.h"
#include "ops/ops.h"

namespace braid {

void MlpBlock::run(const Step& step, const MlpWeights& weights, int32_t layer, const float* x,
                   float* out) {
  const int64_t elements = int64_t{step.num_tokens()} * config_.intermediate_size;
  float* gate = ensure(gate_, elements);
  float* up = ensure(up_, elements);

  const std::array gate_up = {
      linear_params(step, layer, LoraTarget::kGateProj, weights.gate_proj, x, gate),
      linear_params(step, layer, LoraTarget::kUpProj, weights.up_proj, x, up)};
  ops::linear(step.context, gate_up);
  ops::silu_mul(step.context, {.gate = gate, .up = up, .z = gate, .num_elements = elements});

  const std::array down = {
      linear_params(step, layer, LoraTarget::kDownProj, weights.down_proj, gate, out)};
  ops::linear(step.context, down);
}

}  // namespace braid

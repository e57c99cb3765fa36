#include "model/moe_block.h"

#include <array>

#include "model/buffer.h"
#include "ops/ops.h"

namespace braid {

void MoeBlock::run(const Step& step, const MoeWeights& weights, int32_t layer, const float* x,
                   float* out) {
  const int32_t num_tokens = step.num_tokens();
  float* logits = ensure(router_logits_, int64_t{num_tokens} * config_.num_experts);
  int32_t* topk_ids = ensure(topk_ids_, int64_t{num_tokens} * config_.top_k);
  float* topk_weights = ensure(topk_weights_, int64_t{num_tokens} * config_.top_k);

  std::array router = {linear_params(step, layer, LoraTarget::kRouter, weights.router, x, logits)};
  router[0].y_is_logits = true;
  ops::linear(step.context, router);
  ops::router(step.context, {.logits = logits,
                             .topk_ids = topk_ids,
                             .topk_weights = topk_weights,
                             .num_tokens = num_tokens,
                             .num_experts = config_.num_experts,
                             .top_k = config_.top_k,
                             .norm_topk_prob = config_.norm_topk_prob});

  kernels::MoeParams moe{.x = x,
                         .experts = weights.experts.data(),
                         .topk_ids = topk_ids,
                         .topk_weights = topk_weights,
                         .y = out,
                         .num_tokens = num_tokens,
                         .top_k = config_.top_k,
                         .num_experts = config_.num_experts,
                         .hidden_size = config_.hidden_size,
                         .moe_intermediate_size = config_.moe_intermediate_size};
  if (step.slots != nullptr) {
    const ExpertLora* const* of_slot = step.slots->experts(layer);
    if (any_adapts(step, [&](int32_t slot) { return of_slot[slot] != nullptr ? 1 : 0; })) {
      moe.lora_of_slot = of_slot;
      moe.adapter_slot_of_token = step.batch.adapter_slot_of_token.data();
      moe.num_slots = step.slots->num_slots();
    }
  }
  ops::moe(step.context, moe);
}

}  // namespace braid

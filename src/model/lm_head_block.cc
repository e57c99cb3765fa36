#include "model/lm_head_block.h"

#include <algorithm>
#include <array>

#include "model/buffer.h"
#include "ops/ops.h"

namespace braid {

void LmHeadBlock::embed(const Step& step, const DecoderWeights& weights, float* out) {
  kernels::EmbeddingParams p{.token_ids = step.batch.token_ids.data(),
                             .table = weights.embedding.matrix,
                             .out = out,
                             .num_tokens = step.num_tokens()};
  if (step.slots != nullptr) {
    const EmbeddingLora* of_slot = step.slots->embedding();
    if (any_adapts(step, [&](int32_t slot) { return of_slot[slot].rank; })) {
      p.lora_of_slot = of_slot;
      p.adapter_slot_of_token = step.batch.adapter_slot_of_token.data();
      p.num_slots = step.slots->num_slots();
    }
  }
  ops::embedding(step.context, p);
}

void LmHeadBlock::run(const Step& step, const DecoderWeights& weights, const float* residual,
                      const float* delta, float* out) {
  const std::vector<int32_t>& rows = step.batch.logits_token;
  const auto num_rows = static_cast<int32_t>(rows.size());
  if (num_rows == 0) return;
  const int64_t size = config_.hidden_size;
  float* residual_of_row = ensure(residual_, num_rows * size);
  float* delta_of_row = ensure(delta_, num_rows * size);
  float* normed = ensure(normed_, num_rows * size);
  int32_t* slot_of_row = ensure(adapter_slot_of_row_, num_rows);
  for (int32_t i = 0; i < num_rows; ++i) {
    const int32_t token = rows[static_cast<size_t>(i)];
    std::copy_n(residual + token * size, size, residual_of_row + i * size);
    std::copy_n(delta + token * size, size, delta_of_row + i * size);
    slot_of_row[i] = step.batch.adapter_slot_of_token[static_cast<size_t>(token)];
  }
  ops::rms_norm(step.context, {.residual = residual_of_row,
                               .delta = delta_of_row,
                               .weight = weights.final_norm.data(),
                               .y = normed,
                               .num_tokens = num_rows,
                               .hidden_size = config_.hidden_size,
                               .eps = config_.rms_norm_eps});

  std::array head = {linear_params(weights.lm_head, normed, out, num_rows)};
  head[0].y_is_logits = true;
  if (step.slots != nullptr) {
    const LoraPair* of_slot = step.slots->lm_head();
    if (any_adapts(step, [&](int32_t slot) { return of_slot[slot].rank; })) {
      head[0].lora_of_slot = of_slot;
      head[0].adapter_slot_of_token = slot_of_row;
      head[0].num_slots = step.slots->num_slots();
    }
  }
  ops::linear(step.context, head);
}

}  // namespace braid

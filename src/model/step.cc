#include "model/step.h"

#include <algorithm>

#include "base/check.h"
#include "base/ids.h"

namespace braid {

Step make_step(const ops::Context& context, const ForwardBatch& batch, const AdapterSlots* slots,
               KvCache& kv) {
  Step step{.context = context, .batch = batch, .kv = kv};
  for (const int32_t slot : batch.adapter_slot_of_token) {
    if (slot != kNoAdapter) step.used_slots.push_back(slot);
  }
  std::sort(step.used_slots.begin(), step.used_slots.end());
  step.used_slots.erase(std::unique(step.used_slots.begin(), step.used_slots.end()),
                        step.used_slots.end());
  if (step.used_slots.empty()) return step;

  BRAID_CHECK(slots != nullptr);
  for (const int32_t slot : step.used_slots) {
    BRAID_CHECK_GE(slot, 0);
    BRAID_CHECK_LT(slot, slots->num_slots());
    BRAID_CHECK(slots->get(slot) != nullptr);
  }
  step.slots = slots;
  return step;
}

kernels::LinearParams linear_params(const Weight& weight, const float* x, float* y,
                                    int32_t num_rows) {
  return {.x = x,
          .x_stride = weight.matrix.cols,
          .w = weight.matrix,
          .y = y,
          .y_stride = weight.matrix.rows,
          .num_tokens = num_rows};
}

kernels::LinearParams linear_params(const Step& step, int32_t layer, LoraTarget target,
                                    const Weight& weight, const float* x, float* y) {
  kernels::LinearParams p = linear_params(weight, x, y, step.num_tokens());
  if (step.slots == nullptr) return p;
  const LoraPair* of_slot = step.slots->linear(layer, target);
  if (any_adapts(step, [&](int32_t slot) { return of_slot[slot].rank; })) {
    p.lora_of_slot = of_slot;
    p.adapter_slot_of_token = step.batch.adapter_slot_of_token.data();
    p.num_slots = step.slots->num_slots();
  }
  return p;
}

}  // namespace braid

#pragma once

#include <cstdint>
#include <vector>

#include "adapter/adapter_slots.h"
#include "batch/forward_batch.h"
#include "checkpoint/weight_source.h"
#include "kernels/linear/linear.h"
#include "kv/kv_cache.h"
#include "ops/context.h"

namespace braid {

// What the blocks of a model need to know of one step. Lives during Model::forward.
//
// An adapter's side is handed to an op only where an adapter that some token of this step uses sits
// on the module. A step of base tokens, and a module that no adapter of the step touches, run
// exactly the base path whatever else is loaded.
struct Step {
  const ops::Context& context;
  const ForwardBatch& batch;
  KvCache& kv;
  const AdapterSlots* slots = nullptr;  // null: no token of this step has an adapter
  std::vector<int32_t> used_slots;      // adapter slots of this step, rising, each once

  int32_t num_tokens() const { return batch.num_tokens(); }
};

Step make_step(const ops::Context& context, const ForwardBatch& batch, const AdapterSlots* slots,
               KvCache& kv);

// x [num_rows, weight.cols] times the weight, to y [num_rows, weight.rows], both contiguous.
kernels::LinearParams linear_params(const Weight& weight, const float* x, float* y,
                                    int32_t num_rows);

// The same over the tokens of the step, with the adapters' factors on a layer's matrix.
kernels::LinearParams linear_params(const Step& step, int32_t layer, LoraTarget target,
                                    const Weight& weight, const float* x, float* y);

// True when an adapter of this step changes the module, `rank_of(slot)` being its rank there.
template <class RankOf>
bool any_adapts(const Step& step, RankOf rank_of) {
  for (const int32_t slot : step.used_slots) {
    if (rank_of(slot) > 0) return true;
  }
  return false;
}

}  // namespace braid

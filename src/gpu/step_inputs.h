#pragma once

#include <cstdint>

#include "batch/forward_batch.h"
#include "device/device.h"
#include "kernels/lora/adapter_order.h"

namespace braid {

// The most a step can have.
struct StepLimits {
  int32_t max_tokens = 0;
  int32_t max_sequences = 0;
  int32_t max_kv_blocks = 0;  // of a sequence
  int32_t max_logits = 0;     // rows
  int32_t num_adapter_slots = 0;
};

// The arrays of a ForwardBatch on the device, at addresses that stay the same from step to step,
// so that a graph can be replayed on them. Sizes as in ForwardBatch; block_table has rows of
// max_kv_blocks.
class StepInputs {
 public:
  explicit StepInputs(const StepLimits& limits);

  // Copies a batch to the device on `stream`, and waits for the copy before it only. A batch of
  // decodes may be padded: padding up to num_tokens repeats the first sequence, whose keys and
  // values are not written again, and takes the same experts, so that it reads nothing more.
  // max_rank: the largest of the batch's adapters.
  void upload(const ForwardBatch& batch, int32_t num_tokens, int32_t max_rank,
              const Stream& stream);

  const int32_t* token_ids() const { return token_ids_.device; }
  const int32_t* positions() const { return positions_.device; }
  const int32_t* adapter_slot_of_token() const { return adapter_slot_of_token_.device; }
  const int32_t* kv_slot_of_token() const { return kv_slot_of_token_.device; }
  const int32_t* query_indptr() const { return query_indptr_.device; }
  const int32_t* context_len() const { return context_len_.device; }
  const int32_t* block_table() const { return block_table_.device; }
  const int32_t* logits_token() const { return logits_token_.device; }
  // Of a step of num_tokens tokens, padding included.
  kernels::AdapterOrder adapter_order(int32_t num_tokens) const {
    return kernels::adapter_order_at(order_.device, num_tokens, limits_.num_adapter_slots);
  }
  // The same of the rows of logits.
  kernels::AdapterOrder logits_adapter_order(int32_t num_logits) const {
    return kernels::adapter_order_at(logits_order_.device, num_logits, limits_.num_adapter_slots);
  }

 private:
  struct Array {
    int32_t* host = nullptr;
    int32_t* device = nullptr;
  };

  StepLimits limits_;
  PinnedBuffer host_;
  DeviceBuffer device_;
  Event uploaded_;
  Array token_ids_, positions_, adapter_slot_of_token_, kv_slot_of_token_, query_indptr_,
      context_len_, logits_token_, order_, logits_order_, block_table_;
};

}  // namespace braid

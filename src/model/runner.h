#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "adapter/adapter_slots.h"
#include "batch/forward_batch.h"
#include "braid/operation_times.h"
#include "checkpoint/model_config.h"

namespace braid {

class AdapterPool;  // adapter/adapter_pool.h

// How a device may pick the token of a row by itself: what most requests ask for. Rows that need
// more (penalties, biases, grammars, log probabilities) say that they want their logits.
struct Pick {
  bool wants_logits = true;  // then the rest is of no meaning
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint64_t seed = 0;
  int64_t position = 0;  // tokens of the sequence before the one to be picked
};

struct StepRow {
  int32_t token = -1;       // picked as asked; -1: not picked, and the logits are there
  std::span<float> logits;  // [vocab_size] in host memory, may be written to; empty: picked
};

// Runs the steps of one model on one device, with all that has to be there from step to step:
// weights, KV cache, buffers. Used by one thread at a time.
class Runner {
 public:
  virtual ~Runner() = default;

  virtual const ModelConfig& config() const = 0;

  // Bytes of weights a decode step of num_tokens base tokens has to read (step_bytes.h).
  virtual size_t step_bytes(int64_t num_tokens) const = 0;

  // Seconds that a device worked on steps so far, copies to and from it included; 0 where steps run
  // on the calling thread.
  virtual double device_seconds() const { return 0; }

  // See Engine::time_operations. Any thread.
  virtual void time_operations(bool /*on*/) {}
  virtual OperationTimes operation_times() const { return {}; }

  // Bytes a second at which the device reads its memory; nothing for host memory. Any thread, while
  // no step runs.
  virtual std::optional<double> measure_read_rate() const { return std::nullopt; }

  // Where adapters have to be before a step may use them, in memory of the device. Null: nowhere
  // but in slots.
  virtual AdapterPool* adapter_pool() { return nullptr; }

  // Runs the tokens of a step: writes their keys and values into the cache, and returns a row for
  // each of batch.logits_token, valid until the next step. picks[i] is of row i; none: every row's
  // logits are wanted. `adapters` may be null for a base-only batch. Throws InternalError where the
  // batch contradicts itself (batch/check_batch.h).
  virtual std::span<const StepRow> forward(const ForwardBatch& batch, const AdapterSlots* adapters,
                                           std::span<const Pick> picks) = 0;

  std::span<const StepRow> forward(const ForwardBatch& batch, const AdapterSlots* adapters) {
    return forward(batch, adapters, {});
  }
};

}  // namespace braid

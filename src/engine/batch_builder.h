#pragma once

#include <cstdint>
#include <span>

#include "batch/forward_batch.h"
#include "engine/scheduler.h"

namespace braid {

// Lays the chunks of a step end to end; those that decode stand in front, and each of their tokens
// is a sequence. `batch` is overwritten; its vectors keep their capacity, so
// a steady state allocates nothing. Rows of logits stand in the order of chunks: the prompt rows of
// a chunk, then its sampled row.
void build_batch(std::span<const ScheduledChunk> chunks, int32_t block_size, ForwardBatch& batch);

}  // namespace braid

#pragma once

#include <cstdint>
#include <string>

#include "batch/forward_batch.h"

namespace braid {

// What a batch's indices must stay within.
struct BatchLimits {
  int32_t vocab_size = 0;
  int32_t num_adapter_slots = 0;  // 0: base tokens only
  int32_t num_kv_blocks = 0;
  int32_t kv_block_size = 0;
};

// Empty when the batch is well-formed, otherwise one sentence naming the field, its place and its
// value. Linear in tokens and blocks: cheap beside a step. What it holds:
//
//   - one entry a token in each token array, indices in range, no kv_slot twice;
//   - sequences cover the tokens without gap, each with at least one, the first num_decodes with
//     exactly one;
//   - the tokens of a sequence stand at positions context_len - n ... context_len - 1, and its
//     block table puts each of them exactly where kv_slot_of_token says;
//   - logits_token rises.
std::string why_malformed(const ForwardBatch& batch, const BatchLimits& limits);

}  // namespace braid

#pragma once

#include <cstdint>
#include <vector>

namespace braid {

// The tokens of one step, prefill chunks and decodes of several sequences laid end to end. Filled
// by the batch builder, read-only afterwards.
//
// T tokens, S sequences, L rows of logits. The sequences in front, num_decodes of them, have one
// token each, which a reply goes on from: where decoding and prompts have kernels of their own they
// add up in different orders, so which of them a token gets must hang on the token alone. Several
// of them may be neighbouring tokens of one reply: these follow each other.
struct ForwardBatch {
  std::vector<int32_t> token_ids;              // [T]
  std::vector<int32_t> positions;              // [T], position in the sequence, from 0
  std::vector<int32_t> adapter_slot_of_token;  // [T], or kNoAdapter
  std::vector<int32_t> kv_slot_of_token;       // [T], where the token's keys and values go
  std::vector<int32_t> query_indptr;           // [S + 1]
  std::vector<int32_t> context_len;            // [S], cached tokens including those of this step
  std::vector<int32_t> block_table;            // [S, max_kv_blocks]
  int32_t max_kv_blocks = 0;
  int32_t num_decodes = 0;
  std::vector<int32_t> logits_token;  // [L], rows in [0, T) whose logits are wanted, rising

  int32_t num_tokens() const { return static_cast<int32_t>(token_ids.size()); }
  int32_t num_sequences() const { return static_cast<int32_t>(context_len.size()); }
};

}  // namespace braid

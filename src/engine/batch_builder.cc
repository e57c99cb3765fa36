#include "engine/batch_builder.h"

#include <algorithm>

#include "base/check.h"

namespace braid {

void build_batch(std::span<const ScheduledChunk> chunks, int32_t block_size, ForwardBatch& batch) {
  batch.token_ids.clear();
  batch.positions.clear();
  batch.adapter_slot_of_token.clear();
  batch.kv_slot_of_token.clear();
  batch.query_indptr.assign(1, 0);
  batch.context_len.clear();
  batch.logits_token.clear();
  batch.max_kv_blocks = 0;
  batch.num_decodes = 0;

  for (const ScheduledChunk& chunk : chunks) {
    const RequestState& request = *chunk.request;
    const int32_t first_token = batch.num_tokens();
    const int32_t end = request.num_computed + chunk.num_tokens;
    const int32_t num_blocks = (end + block_size - 1) / block_size;
    BRAID_CHECK_LE(num_blocks, static_cast<int32_t>(request.blocks.size()));
    for (int32_t position = request.num_computed; position < end; ++position) {
      batch.token_ids.push_back(request.tokens[position]);
      batch.positions.push_back(position);
      batch.adapter_slot_of_token.push_back(request.adapter_slot);
      batch.kv_slot_of_token.push_back(request.blocks[position / block_size] * block_size +
                                       position % block_size);
      if (!chunk.is_decode && position + 1 < end) continue;
      batch.query_indptr.push_back(batch.num_tokens());
      batch.context_len.push_back(position + 1);
    }
    if (chunk.is_decode) {
      BRAID_CHECK_EQ(batch.num_decodes, first_token);
      batch.num_decodes += chunk.num_tokens;
    }
    batch.max_kv_blocks = std::max(batch.max_kv_blocks, num_blocks);
    for (int32_t row = 0; row < chunk.num_prompt_rows; ++row)
      batch.logits_token.push_back(first_token + chunk.first_prompt_row + row);
    // A prompt row ends one before the last prompt token, so it is never the sampled row.
    if (chunk.samples) batch.logits_token.push_back(batch.num_tokens() - 1);
  }

  batch.block_table.assign(batch.context_len.size() * batch.max_kv_blocks, 0);
  auto row = batch.block_table.begin();
  for (const ScheduledChunk& chunk : chunks) {
    const auto& blocks = chunk.request->blocks;
    const auto count = std::min<size_t>(blocks.size(), batch.max_kv_blocks);
    for (int32_t i = 0; i < (chunk.is_decode ? chunk.num_tokens : 1); ++i) {
      std::copy_n(blocks.begin(), count, row);
      row += batch.max_kv_blocks;
    }
  }
}

}  // namespace braid

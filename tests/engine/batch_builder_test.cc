#include "engine/batch_builder.h"

#include <gtest/gtest.h>

#include "batch/check_batch.h"

namespace braid::test {
namespace {

constexpr int32_t kBlock = 4;

// A request of base tokens 10, 11, ...
std::unique_ptr<RequestState> request(int64_t id, int32_t num_prompt, int32_t num_generated,
                                      int32_t num_computed, std::vector<int32_t> blocks) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < num_prompt; ++i) prompt.push_back(10 + i);
  auto state = std::make_unique<RequestState>(
      RequestId{id}, Request{.prompt = prompt}, AdapterLease(std::shared_ptr<const Adapter>()),
      std::make_shared<AdapterCounters>(), std::vector<int32_t>(), std::nullopt, nullptr,
      OnTokens());
  for (int32_t i = 0; i < num_generated; ++i) state->tokens.push_back(10 + num_prompt + i);
  state->num_computed = num_computed;
  state->blocks = std::move(blocks);
  return state;
}

TEST(BatchBuilder, MakesASequenceOfEachTokenOfAReplyAndOneOfAPromptChunk) {
  const auto decoding = request(1, 3, 2, 4, {7, 5});   // its last token
  const auto preempted = request(2, 3, 4, 3, {2, 4});  // its reply so far, once more
  const auto starting = request(3, 6, 0, 0, {1, 6});   // five tokens of its prompt
  const auto last_of_prompt = request(4, 5, 0, 4, {3, 8});
  const std::vector<ScheduledChunk> chunks = {
      {.request = decoding.get(), .num_tokens = 1, .is_decode = true, .samples = true},
      {.request = preempted.get(), .num_tokens = 4, .is_decode = true, .samples = true},
      {.request = starting.get(), .num_tokens = 5, .num_prompt_rows = 2},
      {.request = last_of_prompt.get(), .num_tokens = 1, .samples = true}};
  ForwardBatch batch;
  for (int times = 0; times < 2; ++times) {
    build_batch(chunks, kBlock, batch);
    EXPECT_EQ(
        why_malformed(batch, {.vocab_size = 100, .num_kv_blocks = 9, .kv_block_size = kBlock}), "");
    EXPECT_EQ(batch.num_decodes, 5);
    EXPECT_EQ(batch.token_ids, (std::vector<int32_t>{14, 13, 14, 15, 16, 10, 11, 12, 13, 14, 14}));
    EXPECT_EQ(batch.query_indptr, (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 10, 11}));
    EXPECT_EQ(batch.context_len, (std::vector<int32_t>{5, 4, 5, 6, 7, 5, 5}));
    EXPECT_EQ(batch.block_table, (std::vector<int32_t>{7, 5, 2, 4, 2, 4, 2, 4, 2, 4, 1, 6, 3, 8}));
    EXPECT_EQ(batch.logits_token, (std::vector<int32_t>{0, 4, 5, 6, 10}));
  }
}

}  // namespace
}  // namespace braid::test

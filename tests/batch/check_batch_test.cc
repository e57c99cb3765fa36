#include "batch/check_batch.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/ids.h"

namespace braid::test {
namespace {

constexpr BatchLimits kLimits = {
    .vocab_size = 100, .num_adapter_slots = 3, .num_kv_blocks = 8, .kv_block_size = 4};

// Two sequences: tokens 3 to 5 of one (blocks 6, 1), and the first of another (block 2).
ForwardBatch good() {
  return {.token_ids = {10, 11, 99, 0},
          .positions = {3, 4, 5, 0},
          .adapter_slot_of_token = {2, 2, 2, kNoAdapter},
          .kv_slot_of_token = {27, 4, 5, 8},
          .query_indptr = {0, 3, 4},
          .context_len = {6, 1},
          .block_table = {6, 1, 2, -1},
          .max_kv_blocks = 2,
          .logits_token = {2, 3}};
}

TEST(CheckBatch, AcceptsWhatIsWellFormed) {
  EXPECT_EQ(why_malformed(good(), kLimits), "");
  EXPECT_EQ(why_malformed({.query_indptr = {0}}, kLimits), "");
}

TEST(CheckBatch, AcceptsNeighbouringTokensOfAReplyAsSequences) {
  const ForwardBatch batch = {.token_ids = {10, 11, 0},
                              .positions = {3, 4, 0},
                              .adapter_slot_of_token = {2, 2, kNoAdapter},
                              .kv_slot_of_token = {27, 4, 8},
                              .query_indptr = {0, 1, 2, 3},
                              .context_len = {4, 5, 1},
                              .block_table = {6, 1, 6, 1, 2, -1},
                              .max_kv_blocks = 2,
                              .num_decodes = 2,
                              .logits_token = {1, 2}};
  EXPECT_EQ(why_malformed(batch, kLimits), "");
}

struct Fault {
  const char* name;
  std::function<void(ForwardBatch&)> make;
  std::string message;
};

class CheckBatchFault : public testing::TestWithParam<Fault> {};

TEST_P(CheckBatchFault, IsNamed) {
  ForwardBatch batch = good();
  GetParam().make(batch);
  EXPECT_EQ(why_malformed(batch, kLimits), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, CheckBatchFault,
    testing::Values(
        Fault{"positions_size", [](auto& b) { b.positions.pop_back(); },
              "positions has 3 entries, need 4"},
        Fault{"adapter_slots_size", [](auto& b) { b.adapter_slot_of_token.clear(); },
              "adapter_slot_of_token has 0 entries, need 4"},
        Fault{"kv_slots_size", [](auto& b) { b.kv_slot_of_token.push_back(1); },
              "kv_slot_of_token has 5 entries, need 4"},
        Fault{"indptr_size", [](auto& b) { b.query_indptr.pop_back(); },
              "query_indptr has 2 entries, need 3"},
        Fault{"indptr_empty", [](auto& b) { b = {}; }, "query_indptr has 0 entries, need 1"},
        Fault{"table_size", [](auto& b) { b.block_table.pop_back(); },
              "block_table has 3 entries, need 4"},
        Fault{"table_width", [](auto& b) { b.max_kv_blocks = -1; },
              "max_kv_blocks = -1, need >= 0"},
        Fault{"negative_decodes", [](auto& b) { b.num_decodes = -1; },
              "num_decodes = -1, need 0 to 2, the number of sequences"},
        Fault{"too_many_decodes", [](auto& b) { b.num_decodes = 3; },
              "num_decodes = 3, need 0 to 2, the number of sequences"},
        Fault{"decode_of_many_tokens", [](auto& b) { b.num_decodes = 1; },
              "sequence 0 has 3 tokens, need one: num_decodes is 1"},
        Fault{"token", [](auto& b) { b.token_ids[1] = 100; },
              "token_ids[1] = 100, need a value in [0, 100)"},
        Fault{"negative_token", [](auto& b) { b.token_ids[0] = -1; },
              "token_ids[0] = -1, need a value in [0, 100)"},
        Fault{"adapter_slot", [](auto& b) { b.adapter_slot_of_token[0] = 3; },
              "adapter_slot_of_token[0] = 3, need -1 or a value in [0, 3)"},
        Fault{"indptr_start", [](auto& b) { b.query_indptr[0] = 1; },
              "query_indptr goes from 1 to 4, need 0 to 4"},
        Fault{"indptr_end", [](auto& b) { b.query_indptr[2] = 5; },
              "query_indptr goes from 0 to 5, need 0 to 4"},
        Fault{"empty_sequence", [](auto& b) { b.query_indptr[1] = 0; },
              "query_indptr gives sequence 0 the tokens [0, 0) of 4, need at least one"},
        Fault{"short_context", [](auto& b) { b.context_len[0] = 2; },
              "context_len[0] = 2, need at least its 3 tokens and at most 2 blocks of 4"},
        Fault{"long_context", [](auto& b) { b.context_len[0] = 9; },
              "context_len[0] = 9, need at least its 3 tokens and at most 2 blocks of 4"},
        Fault{"block", [](auto& b) { b.block_table[1] = 8; },
              "block_table[0, 1] = 8, need a value in [0, 8)"},
        Fault{"position", [](auto& b) { b.positions[1] = 5; },
              "positions[1] = 5, need 4: sequence 0 has context_len 6"},
        Fault{"kv_slot", [](auto& b) { b.kv_slot_of_token[1] = 6; },
              "kv_slot_of_token[1] = 6, need 4: the block table of sequence 0 says so"},
        Fault{"shared_kv_slot",
              [](auto& b) {
                b.block_table[2] = 1;
                b.kv_slot_of_token[3] = 4;
              },
              "kv_slot 4 is written by two tokens"},
        Fault{"logits_token", [](auto& b) { b.logits_token[1] = 4; },
              "logits_token[1] = 4, need a value in [3, 4)"},
        Fault{"logits_order",
              [](auto& b) {
                b.logits_token = {3, 3};
              },
              "logits_token[1] = 3, need a value in [4, 4)"}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(CheckBatch, NamesAMissingBlockSize) {
  EXPECT_EQ(why_malformed(good(), {}), "kv_block_size = 0, need >= 1");
}

}  // namespace
}  // namespace braid::test

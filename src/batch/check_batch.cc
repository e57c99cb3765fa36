#include "batch/check_batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/ids.h"

namespace braid {
namespace {

std::string sizes_problem(const ForwardBatch& b) {
  const auto differs = [](const char* field, size_t size, size_t want) {
    return fmt::format("{} has {} entries, need {}", field, size, want);
  };
  const size_t num_tokens = b.token_ids.size(), num_sequences = b.context_len.size();
  if (b.positions.size() != num_tokens) return differs("positions", b.positions.size(), num_tokens);
  if (b.adapter_slot_of_token.size() != num_tokens) {
    return differs("adapter_slot_of_token", b.adapter_slot_of_token.size(), num_tokens);
  }
  if (b.kv_slot_of_token.size() != num_tokens) {
    return differs("kv_slot_of_token", b.kv_slot_of_token.size(), num_tokens);
  }
  if (b.query_indptr.size() != num_sequences + 1) {
    return differs("query_indptr", b.query_indptr.size(), num_sequences + 1);
  }
  if (b.max_kv_blocks < 0) return fmt::format("max_kv_blocks = {}, need >= 0", b.max_kv_blocks);
  if (b.num_decodes < 0 || b.num_decodes > b.num_sequences()) {
    return fmt::format("num_decodes = {}, need 0 to {}, the number of sequences", b.num_decodes,
                       b.num_sequences());
  }
  const size_t table = num_sequences * static_cast<size_t>(b.max_kv_blocks);
  if (b.block_table.size() != table) return differs("block_table", b.block_table.size(), table);
  return "";
}

std::string token_problem(const ForwardBatch& b, const BatchLimits& limits, size_t t) {
  const auto in_range = [](int32_t value, int32_t end) { return 0 <= value && value < end; };
  if (!in_range(b.token_ids[t], limits.vocab_size)) {
    return fmt::format("token_ids[{}] = {}, need a value in [0, {})", t, b.token_ids[t],
                       limits.vocab_size);
  }
  const int32_t slot = b.adapter_slot_of_token[t];
  if (slot != kNoAdapter && !in_range(slot, limits.num_adapter_slots)) {
    return fmt::format("adapter_slot_of_token[{}] = {}, need {} or a value in [0, {})", t, slot,
                       kNoAdapter, limits.num_adapter_slots);
  }
  return "";
}

std::string sequence_problem(const ForwardBatch& b, const BatchLimits& limits, size_t s) {
  const int32_t begin = b.query_indptr[s], end = b.query_indptr[s + 1];
  if (begin >= end || end > b.num_tokens()) {
    return fmt::format(
        "query_indptr gives sequence {} the tokens [{}, {}) of {}, need at least one", s, begin,
        end, b.num_tokens());
  }
  if (static_cast<int32_t>(s) < b.num_decodes && end - begin != 1) {
    return fmt::format("sequence {} has {} tokens, need one: num_decodes is {}", s, end - begin,
                       b.num_decodes);
  }
  const int32_t context = b.context_len[s], block_size = limits.kv_block_size;
  if (context < end - begin || (context - 1) / block_size >= b.max_kv_blocks) {
    return fmt::format(
        "context_len[{}] = {}, need at least its {} tokens and at most {} blocks of {}", s, context,
        end - begin, b.max_kv_blocks, block_size);
  }
  const int32_t* table = b.block_table.data() + s * static_cast<size_t>(b.max_kv_blocks);
  for (int32_t i = 0; i <= (context - 1) / block_size; ++i) {
    if (table[i] < 0 || table[i] >= limits.num_kv_blocks) {
      return fmt::format("block_table[{}, {}] = {}, need a value in [0, {})", s, i, table[i],
                         limits.num_kv_blocks);
    }
  }
  for (int32_t t = begin; t < end; ++t) {
    const int32_t position = context - (end - t);
    const auto at = static_cast<size_t>(t);
    if (b.positions[at] != position) {
      return fmt::format("positions[{}] = {}, need {}: sequence {} has context_len {}", t,
                         b.positions[at], position, s, context);
    }
    const int64_t slot = int64_t{table[position / block_size]} * block_size + position % block_size;
    if (b.kv_slot_of_token[at] != slot) {
      return fmt::format(
          "kv_slot_of_token[{}] = {}, need {}: the block table of sequence {} says so", t,
          b.kv_slot_of_token[at], slot, s);
    }
  }
  return "";
}

}  // namespace

std::string why_malformed(const ForwardBatch& b, const BatchLimits& limits) {
  if (limits.kv_block_size < 1) {
    return fmt::format("kv_block_size = {}, need >= 1", limits.kv_block_size);
  }
  if (std::string problem = sizes_problem(b); !problem.empty()) return problem;
  for (size_t t = 0; t < b.token_ids.size(); ++t) {
    if (std::string problem = token_problem(b, limits, t); !problem.empty()) return problem;
  }
  if (b.query_indptr.front() != 0 || b.query_indptr.back() != b.num_tokens()) {
    return fmt::format("query_indptr goes from {} to {}, need 0 to {}", b.query_indptr.front(),
                       b.query_indptr.back(), b.num_tokens());
  }
  for (size_t s = 0; s < b.context_len.size(); ++s) {
    if (std::string problem = sequence_problem(b, limits, s); !problem.empty()) return problem;
  }
  std::vector<int32_t> kv_slots = b.kv_slot_of_token;
  std::sort(kv_slots.begin(), kv_slots.end());
  const auto twice = std::adjacent_find(kv_slots.begin(), kv_slots.end());
  if (twice != kv_slots.end()) return fmt::format("kv_slot {} is written by two tokens", *twice);

  for (size_t i = 0; i < b.logits_token.size(); ++i) {
    const int32_t token = b.logits_token[i], least = i == 0 ? 0 : b.logits_token[i - 1] + 1;
    if (token < least || token >= b.num_tokens()) {
      return fmt::format("logits_token[{}] = {}, need a value in [{}, {})", i, token, least,
                         b.num_tokens());
    }
  }
  return "";
}

}  // namespace braid

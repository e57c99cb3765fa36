#include "gpu/step_inputs.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace braid {

StepInputs::StepInputs(const StepLimits& limits) : limits_(limits) {
  const auto order_size = [&](int32_t rows) {
    return static_cast<int64_t>(kernels::adapter_order_bytes(rows, limits.num_adapter_slots) /
                                sizeof(int32_t));
  };
  // Whole cache lines each; the table stands last, so that a step copies only the rows it has.
  const std::vector<std::pair<Array*, int64_t>> arrays = {
      {&token_ids_, limits.max_tokens},
      {&positions_, limits.max_tokens},
      {&adapter_slot_of_token_, limits.max_tokens},
      {&kv_slot_of_token_, limits.max_tokens},
      {&query_indptr_, limits.max_sequences + 1},
      {&context_len_, limits.max_sequences},
      {&logits_token_, limits.max_logits},
      {&order_, order_size(limits.max_tokens)},
      {&logits_order_, order_size(limits.max_logits)},
      {&block_table_, int64_t{limits.max_sequences} * limits.max_kv_blocks}};
  constexpr int64_t kLine = 32;
  const auto padded = [](int64_t count) { return (count + kLine - 1) / kLine * kLine; };
  int64_t size = 0;
  for (const auto& [array, count] : arrays) size += padded(count);
  host_ = PinnedBuffer(static_cast<size_t>(size) * sizeof(int32_t));
  device_ = DeviceBuffer(host_.bytes());
  auto* const host = reinterpret_cast<int32_t*>(host_.data());
  int64_t at = 0;
  for (const auto& [array, count] : arrays) {
    *array = {.host = host + at, .device = device_.as<int32_t>() + at};
    at += padded(count);
  }
}

void StepInputs::upload(const ForwardBatch& batch, int32_t num_tokens, int32_t max_rank,
                        const Stream& stream) {
  const int32_t given = batch.num_tokens(), sequences = batch.num_sequences();
  const int32_t padding = num_tokens - given;
  BRAID_CHECK_LE(num_tokens, limits_.max_tokens);
  BRAID_CHECK_LE(sequences + padding, limits_.max_sequences);
  BRAID_CHECK_LE(batch.max_kv_blocks, limits_.max_kv_blocks);
  BRAID_CHECK_LE(static_cast<int32_t>(batch.logits_token.size()) + padding, limits_.max_logits);
  BRAID_CHECK_GE(padding, 0);

  uploaded_.wait();
  const auto fill = [&](const Array& array, const std::vector<int32_t>& values, auto pad) {
    std::copy(values.begin(), values.end(), array.host);
    for (int32_t i = 0; i < padding; ++i)
      array.host[values.size() + static_cast<size_t>(i)] = pad(i);
  };
  const auto first_of = [](const std::vector<int32_t>& values) {
    return [&values](int32_t) { return values.front(); };
  };
  fill(token_ids_, batch.token_ids, first_of(batch.token_ids));
  fill(positions_, batch.positions, first_of(batch.positions));
  fill(adapter_slot_of_token_, batch.adapter_slot_of_token, first_of(batch.adapter_slot_of_token));
  fill(kv_slot_of_token_, batch.kv_slot_of_token, [](int32_t) { return -1; });
  fill(query_indptr_, batch.query_indptr, [&](int32_t i) { return given + 1 + i; });
  fill(context_len_, batch.context_len, first_of(batch.context_len));
  fill(logits_token_, batch.logits_token, [&](int32_t i) { return given + i; });
  for (int32_t s = 0; s < sequences + padding; ++s) {
    const int64_t row = s < sequences ? s : 0;
    std::copy_n(batch.block_table.begin() + row * batch.max_kv_blocks, batch.max_kv_blocks,
                block_table_.host + int64_t{s} * limits_.max_kv_blocks);
  }
  const std::span slots(adapter_slot_of_token_.host, static_cast<size_t>(num_tokens));
  kernels::write_adapter_order(slots, limits_.num_adapter_slots, max_rank, order_.host);
  std::vector<int32_t> slot_of_row;
  for (size_t i = 0; i < batch.logits_token.size() + static_cast<size_t>(padding); ++i)
    slot_of_row.push_back(slots[static_cast<size_t>(logits_token_.host[i])]);
  kernels::write_adapter_order(slot_of_row, limits_.num_adapter_slots, max_rank,
                               logits_order_.host);

  const int64_t used = block_table_.device - device_.as<int32_t>() +
                       int64_t{sequences + padding} * limits_.max_kv_blocks;
  stream.upload(device_.data(), host_, 0, static_cast<size_t>(used) * sizeof(int32_t));
  uploaded_.record(stream);
}

}  // namespace braid

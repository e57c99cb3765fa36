#include "kernels/lora/adapter_order.h"

#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/ids.h"

namespace braid::kernels {
namespace {

// Where the parts begin, in bytes: the number of runs and max_rank, token_of_row, run_of_row, runs.
struct Layout {
  size_t token_of_row = 16;
  size_t run_of_row;
  size_t runs;
  size_t end;
};

Layout layout_of(int32_t num_tokens, int32_t num_slots) {
  const size_t rows = static_cast<size_t>(num_tokens) * sizeof(int32_t);
  Layout l = {};
  l.run_of_row = l.token_of_row + rows;
  l.runs = l.run_of_row + rows;
  const auto runs = static_cast<size_t>(max_adapter_runs(num_tokens, num_slots));
  l.end = (l.runs + runs * sizeof(AdapterRun) + 15) / 16 * 16;
  return l;
}

}  // namespace

size_t adapter_order_bytes(int32_t num_tokens, int32_t num_slots) {
  return layout_of(num_tokens, num_slots).end;
}

AdapterOrder adapter_order_at(const void* bytes, int32_t num_tokens, int32_t num_slots) {
  const Layout l = layout_of(num_tokens, num_slots);
  const auto* at = static_cast<const uint8_t*>(bytes);
  return {.token_of_row = reinterpret_cast<const int32_t*>(at + l.token_of_row),
          .run_of_row = reinterpret_cast<const int32_t*>(at + l.run_of_row),
          .runs = reinterpret_cast<const AdapterRun*>(at + l.runs),
          .num_runs = reinterpret_cast<const int32_t*>(at),
          .max_rank = reinterpret_cast<const int32_t*>(at) + 1,
          .max_runs = max_adapter_runs(num_tokens, num_slots)};
}

void write_adapter_order(std::span<const int32_t> adapter_slot_of_token, int32_t num_slots,
                         int32_t max_rank, void* bytes) {
  const auto num_tokens = static_cast<int32_t>(adapter_slot_of_token.size());
  const AdapterOrder order = adapter_order_at(bytes, num_tokens, num_slots);
  std::memset(bytes, 0, adapter_order_bytes(num_tokens, num_slots));
  auto* const token_of_row = const_cast<int32_t*>(order.token_of_row);
  auto* const run_of_row = const_cast<int32_t*>(order.run_of_row);
  auto* const runs = const_cast<AdapterRun*>(order.runs);

  // A counting sort; tokens of no adapter count as the last slot.
  const auto place = [&](int32_t slot) {
    return static_cast<size_t>(slot == kNoAdapter ? num_slots : slot);
  };
  std::vector<int32_t> next_row(static_cast<size_t>(num_slots) + 2, 0);
  for (const int32_t slot : adapter_slot_of_token) {
    BRAID_CHECK(slot == kNoAdapter || (slot >= 0 && slot < num_slots));
    ++next_row[place(slot) + 1];
  }
  for (size_t i = 1; i < next_row.size(); ++i) next_row[i] += next_row[i - 1];
  const std::vector<int32_t> first_row = next_row;
  for (int32_t t = 0; t < num_tokens; ++t)
    token_of_row[next_row[place(adapter_slot_of_token[static_cast<size_t>(t)])]++] = t;

  int32_t num_runs = 0;
  for (int32_t slot = 0; slot < num_slots; ++slot) {
    const int32_t end = first_row[place(slot) + 1];
    for (int32_t row = first_row[place(slot)]; row < end; row += kMaxRunRows) {
      const int32_t num_rows = end - row < kMaxRunRows ? end - row : kMaxRunRows;
      for (int32_t i = 0; i < num_rows; ++i) run_of_row[row + i] = num_runs;
      runs[num_runs++] = {.slot = slot, .first_row = row, .num_rows = num_rows};
    }
  }
  for (int32_t row = first_row[place(kNoAdapter)]; row < num_tokens; ++row) run_of_row[row] = -1;
  *const_cast<int32_t*>(order.num_runs) = num_runs;
  *const_cast<int32_t*>(order.max_rank) = max_rank;
}

}  // namespace braid::kernels

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace braid::kernels {

// Which tokens of a step have which adapter, in the order in which LoRA kernels take them: tokens
// sorted by adapter slot, those of no adapter last, each group in the order of the step. Made once
// a step on the host and shared by all layers.
//
//   adapter_slot_of_token   2  -  0  2  -  2
//   token_of_row            2  0  3  5  1  4      a row is a place in this order
//   run_of_row              0  1  1  1 -1 -1
//   runs                    {slot 0, rows 0..0}, {slot 2, rows 1..3}
//
// T tokens, S adapter slots.

// Neighbouring rows of one adapter.
struct AdapterRun {
  int32_t slot;  // in [0, S)
  int32_t first_row;
  int32_t num_rows;  // 1 to kMaxRunRows; an adapter of more rows has several runs
};
inline constexpr int32_t kMaxRunRows = 16;

// Runs that T tokens on S slots can have at most.
constexpr int32_t max_adapter_runs(int32_t num_tokens, int32_t num_slots) {
  return num_tokens / kMaxRunRows + (num_tokens < num_slots ? num_tokens : num_slots);
}

// On the device. Not owned.
struct AdapterOrder {
  const int32_t* token_of_row = nullptr;  // [T], a permutation
  const int32_t* run_of_row = nullptr;    // [T], -1: no adapter
  const AdapterRun* runs = nullptr;       // [max_runs], of which *num_runs count
  const int32_t* num_runs = nullptr;      // [1]; kernels read it, so that a graph can be replayed
                                          // with other adapters
  const int32_t* max_rank = nullptr;      // [1], of their adapters: how finely work is cut
  int32_t max_runs = 0;                   // max_adapter_runs(T, S): sizes grids
};

// One block of memory holds all of an order, so that one copy brings it to the device.

// Bytes for T tokens on S slots, a multiple of 16.
size_t adapter_order_bytes(int32_t num_tokens, int32_t num_slots);

// The order that lies, or will lie, at `bytes` (16-byte aligned, on either side).
AdapterOrder adapter_order_at(const void* bytes, int32_t num_tokens, int32_t num_slots);

// Writes the order of these tokens to host memory of adapter_order_bytes(T, num_slots). Slots are
// in [0, num_slots) or kNoAdapter; max_rank is the largest of their adapters. Every byte is
// written. Throws InternalError on another slot.
void write_adapter_order(std::span<const int32_t> adapter_slot_of_token, int32_t num_slots,
                         int32_t max_rank, void* bytes);

}  // namespace braid::kernels

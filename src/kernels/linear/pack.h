#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/linear/linear_bf16.h"
#include "kernels/lora/lora_pair.h"

namespace braid::kernels {

// Checkpoint order to the order in which the linear kernels stream, on the host, at load.

// Bytes of a packed layer, zeros up to whole tiles included.
int64_t linear_weight_bytes(const LinearShape& shape);

// Packs the slices of a layer, matrices of shape.format with shape.slice_out rows and shape.in
// columns, into linear_weight_bytes(shape) bytes at `out`. Throws InternalError if a matrix is of
// another format or size.
void pack_linear(const LinearShape& shape, std::span<const WeightMatrix> slices, uint8_t* out);

// An adapter's packed factors and the offsets at which its parts begin.
struct PackedLinearAdapter {
  std::vector<uint8_t> bytes;  // a multiple of 16; empty where nothing is adapted
  // Its pointers are offsets into `bytes` until placed_at() has made them addresses.
  LinearAdapterSlot slot;

  // device_bytes is 16-byte aligned.
  LinearAdapterSlot placed_at(const void* device_bytes) const;
};

// Packs what one adapter has on a layer: a pair for each slice, rank 0 where it has none. Ranks are
// rounded up to 8 with zeros. Throws InternalError on a rank past 256.
PackedLinearAdapter pack_linear_adapter(const LinearShape& shape, std::span<const LoraPair> slices);

}  // namespace braid::kernels

#include "kernels/linear/pack.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/linear/layout.h"
#include "kernels/lora/pack_fragment.h"

namespace braid::kernels {
namespace {

// Row `row` of the layer: its slice, and the row of that.
struct SliceRow {
  int32_t slice = 0;
  int32_t row = 0;
};
SliceRow find_row(const LinearShape& shape, int32_t row) {
  SliceRow at = {.row = row};
  while (at.row >= shape.slice_out[at.slice]) at.row -= shape.slice_out[at.slice++];
  return at;
}

int32_t up_to_8(int32_t rank) { return (rank + 7) / 8 * 8; }

}  // namespace

int64_t linear_weight_bytes(const LinearShape& shape) {
  return num_row_tiles(shape) * row_tile_bytes(shape);
}

void pack_linear(const LinearShape& shape, std::span<const WeightMatrix> slices, uint8_t* out) {
  BRAID_CHECK_EQ(why_unsupported(shape), "");
  BRAID_CHECK_EQ(slices.size(), static_cast<size_t>(shape.num_slices));
  for (size_t s = 0; s < slices.size(); ++s) {
    BRAID_CHECK(slices[s].format == shape.format);
    BRAID_CHECK_EQ(slices[s].rows, shape.slice_out[s]);
    BRAID_CHECK_EQ(slices[s].cols, shape.in);
  }
  const int32_t depth = num_depth_tiles(shape);
  const int32_t row_bytes = shape.in * (shape.format == WeightFormat::kBf16 ? 2 : 1);
  std::memset(out, 0, static_cast<size_t>(linear_weight_bytes(shape)));
  for (int32_t row = 0; row < shape.out(); ++row) {
    uint8_t* const rows = out + row / 128 * row_tile_bytes(shape);
    const SliceRow from = find_row(shape, row);
    const WeightMatrix& w = slices[static_cast<size_t>(from.slice)];
    const auto* const codes = static_cast<const uint8_t*>(w.data) + int64_t{from.row} * row_bytes;
    for (int32_t byte = 0; byte < row_bytes; byte += 16) {
      std::memcpy(rows + byte / 128 * kWeightTileBytes + swizzled(row % 128, byte % 128),
                  codes + byte, 16);
    }
    if (shape.format == WeightFormat::kFp8Block128 && row % 64 == 0) {
      for (int32_t k = 0; k < depth; ++k) {
        const float scale = w.block_scale[int64_t{from.row / 128} * depth + k];
        std::memcpy(rows + depth * kWeightTileBytes + 8 * k + row % 128 / 64 * 4, &scale, 4);
      }
    }
  }
}

LinearAdapterSlot PackedLinearAdapter::placed_at(const void* device_bytes) const {
  LinearAdapterSlot placed = slot;
  const auto place = [&](const uint8_t*& part) {
    part = static_cast<const uint8_t*>(device_bytes) + reinterpret_cast<uintptr_t>(part);
  };
  place(placed.shrink);
  for (const uint8_t*& part : placed.expand) place(part);
  return placed;
}

PackedLinearAdapter pack_linear_adapter(const LinearShape& shape,
                                        std::span<const LoraPair> slices) {
  BRAID_CHECK_EQ(slices.size(), static_cast<size_t>(shape.num_slices));
  PackedLinearAdapter packed;
  LinearAdapterSlot& slot = packed.slot;
  std::vector<std::pair<const LoraPair*, int32_t>> a_rows;  // of A, -1 fills up
  for (size_t s = 0; s < slices.size(); ++s) {
    const LoraPair& pair = slices[s];
    BRAID_CHECK_GE(pair.rank, 0);
    BRAID_CHECK_LE(pair.rank, 256);
    slot.rank[s] = up_to_8(pair.rank);
    slot.scaling[s] = pair.scaling;
    for (int32_t r = 0; r < slot.rank[s]; ++r) a_rows.emplace_back(&pair, r < pair.rank ? r : -1);
  }
  const auto total_rank = static_cast<int32_t>(a_rows.size());
  int64_t size = shrink_bytes(shape.in, total_rank);
  for (size_t s = 0; s < slices.size(); ++s) {
    slot.expand[s] = reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(size));
    size += expand_bytes(shape.slice_out[s], slot.rank[s]);
  }
  packed.bytes.resize(static_cast<size_t>(size));

  uint8_t* out = packed.bytes.data();
  for (int32_t row = 0; row < total_rank; row += 16) {
    for (int32_t chunk = 0; chunk < num_shrink_chunks(shape.in); ++chunk) {
      for (int32_t step = 0; step < 4; ++step) {
        const auto value = [&](int32_t i, int32_t j) {
          const auto [pair, r] = a_rows[static_cast<size_t>(row + i)];
          const int32_t column = kShrinkColumns * chunk + shrink_column(step, j);
          return r < 0 || column >= shape.in ? Bf16{} : pair->a[int64_t{r} * shape.in + column];
        };
        out = pack_fragment(std::min(16, total_rank - row), 16, value, out);
      }
    }
  }
  for (size_t s = 0; s < slices.size(); ++s) {
    const LoraPair& pair = slices[s];
    for (int32_t row = 0; row < shape.slice_out[s]; row += 16) {
      for (int32_t rank = 0; rank < slot.rank[s]; rank += 16) {
        const auto value = [&](int32_t i, int32_t j) {
          const bool there = rank + j < pair.rank && row + i < shape.slice_out[s];
          return there ? pair.b_t[int64_t{rank + j} * shape.slice_out[s] + row + i] : Bf16{};
        };
        out = pack_fragment(16, std::min(16, slot.rank[s] - rank), value, out);
      }
    }
  }
  BRAID_CHECK_EQ(out - packed.bytes.data(), size);
  return packed;
}

}  // namespace braid::kernels

#include "kernels/moe_gemm/pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/lora/pack_fragment.h"
#include "kernels/moe_gemm/layout.h"

namespace braid::kernels {
namespace {

// A row of the 128 that are packed together.
struct MatrixRow {
  const WeightMatrix& matrix;
  int32_t row;

  const uint8_t* bytes(int32_t bytes_of_row) const {
    return static_cast<const uint8_t*>(matrix.data) + int64_t{row} * bytes_of_row;
  }
};

// Tiles of 128 bytes of each row.
template <class RowOf>
void pack_tiles(RowOf row_of, int32_t bytes_of_row, uint8_t* out) {
  for (int32_t r = 0; r < 128; ++r) {
    const uint8_t* const from = row_of(r).bytes(bytes_of_row);
    for (int32_t byte = 0; byte < bytes_of_row; byte += 16)
      std::memcpy(out + byte / 128 * kWeightTileBytes + swizzled(r, byte % 128), from + byte, 16);
  }
}

// Of a row and the column that an NVFP4 register takes it from: bits 15, 8, 7 and 6 of a half.
uint32_t nvfp4_register_half(const MatrixRow& from, int32_t column) {
  const int32_t cols = from.matrix.cols;
  const uint8_t pair = from.bytes(cols / 2)[column / 2];
  uint32_t code = column % 2 == 0 ? pair & 15 : pair >> 4;
  // Scales lose their sign.
  if (from.matrix.group_scale[(int64_t{from.row} * cols + column) / 16] & 0x80) code ^= 8;
  return (code & 8) << 12 | (code & 7) << 6;
}

// Two words from the registers that are decoded from them.
std::array<uint32_t, 2> pack_nvfp4_words(const std::array<uint32_t, 8>& registers) {
  std::array<uint32_t, 2> words = {};
  const auto rotated = [&](int32_t i, int32_t by) {
    return std::rotr(registers[static_cast<size_t>(i)], by);
  };
  for (int32_t i = 0; i < 3; ++i) {
    words[0] |= rotated(i, nvfp4_rotation(i));
    words[1] |= rotated(3 + i, nvfp4_rotation(i));
  }
  for (int32_t i = 0; i < 2; ++i) {
    const uint32_t left = rotated(6 + i, nvfp4_left_rotation(i));
    words[0] |= left & kNvfp4LeftMask;
    words[1] |= std::rotr(left & ~kNvfp4LeftMask, kNvfp4LeftRotation);
  }
  return words;
}

// Blocks of 128 columns.
template <class RowOf>
void pack_nvfp4_blocks(RowOf row_of, int32_t columns, uint8_t* out) {
  for (int32_t k = 0; k < columns; k += 128, out += kNvfp4BlockBytes) {
    for (int32_t r = 0; r < 128; ++r) {
      const MatrixRow from = row_of(r);
      const uint8_t* const scales = from.matrix.group_scale + int64_t{from.row} * (columns / 16);
      const int32_t half = r / 64, warp = r / 16 % 4, lower = r / 8 % 2;
      for (int32_t q = 0; q < 4; ++q) {
        const int32_t thread = warp * 32 + r % 8 * 4 + q, first = k + 32 * q;
        for (int32_t eight = 0; eight < 2; ++eight) {
          std::array<uint32_t, 8> registers;
          for (int32_t i = 0; i < 8; ++i) {
            const int32_t column = first + 8 * eight + i;
            registers[static_cast<size_t>(i)] =
                nvfp4_register_half(from, column) | nvfp4_register_half(from, column + 16) << 16;
          }
          std::memcpy(out + (2 * half + eight) * kNvfp4QuarterBytes + thread * 16 + 8 * lower,
                      pack_nvfp4_words(registers).data(), 8);
        }
        const uint32_t two_scales = static_cast<uint32_t>(scales[first / 16] & 0x7f) << 4 |
                                    static_cast<uint32_t>(scales[first / 16 + 1] & 0x7f) << 20;
        uint8_t* const at = out + kNvfp4CodeBytes + thread * 8 + 4 * half;
        uint32_t word = 0;
        if (lower == 1) std::memcpy(&word, at, 4);
        word |= std::rotr(two_scales, lower * kNvfp4ScaleRotation);
        std::memcpy(at, &word, 4);
      }
    }
  }
}

float block_scale(const MatrixRow& of, int32_t column) {
  const WeightMatrix& w = of.matrix;
  return w.block_scale[int64_t{of.row / 128} * ((w.cols + 127) / 128) + column / 128];
}

// 128 rows given one by one. Rows 0..7 of each 16 are of one matrix and rows 8..15 of one.
template <class RowOf>
void pack_rows(WeightFormat format, int32_t columns, RowOf row_of, uint8_t* out) {
  uint8_t* const behind = out + weight_columns_bytes(format, columns);
  const auto store_scales = [&](int32_t i, float upper, float lower) {
    const float scales[2] = {upper, lower};
    std::memcpy(behind + 8 * i, scales, sizeof(scales));
  };
  switch (format) {
    case WeightFormat::kFp8Block128:
      pack_tiles(row_of, columns, out);
      for (int32_t k = 0; k < columns / 128; ++k)
        store_scales(k, block_scale(row_of(0), 128 * k), block_scale(row_of(8), 128 * k));
      break;
    case WeightFormat::kBf16:
      pack_tiles(row_of, 2 * columns, out);
      break;
    case WeightFormat::kNvfp4:
      pack_nvfp4_blocks(row_of, columns, out);
      for (int32_t i = 0; i < 2; ++i) {
        store_scales(i, row_of(0).matrix.global_scale * kNvfp4Unit,
                     row_of(8).matrix.global_scale * kNvfp4Unit);
      }
      break;
    default:
      BRAID_UNREACHABLE(static_cast<int>(format));
  }
}

Bf16 at(const LoraPair& lora, const Bf16* factor, int32_t r, int64_t i, int64_t n) {
  return r < lora.rank ? factor[r * n + i] : Bf16{};
}

// Of B, as one scaling for all experts of the layer makes it.
Bf16 at_of_b(const LoraPair& lora, float scaling, int32_t r, int64_t i, int64_t n) {
  const Bf16 value = at(lora, lora.b_t, r, i, n);
  return lora.rank == 0 || lora.scaling == scaling
             ? value
             : to_bf16(to_float(value) * (lora.scaling / scaling));
}
void take_larger(float& scaling, const LoraPair& lora) {
  if (lora.rank > 0 && std::abs(lora.scaling) > std::abs(scaling)) scaling = lora.scaling;
}

int32_t up_to_8(int32_t rank) { return (rank + 7) / 8 * 8; }

// A of gate above A of up (or the one that serves both): slabs of 64 rows, in them steps of 16
// columns, in them 16 rows each.
void pack_shrink(const ExpertLora& e, int32_t rank, bool one_a, int32_t hidden, uint8_t* out) {
  const int32_t rows = one_a ? rank : 2 * rank;
  const auto value = [&](int32_t r, int32_t k) {
    return r < rank ? at(e.gate, e.gate.a, r, k, hidden) : at(e.up, e.up.a, r - rank, k, hidden);
  };
  for (int32_t slab = 0; 64 * slab < rows; ++slab) {
    const int32_t in_slab = slab_rows(rows, slab);
    for (int32_t k = 0; k < hidden; k += 16) {
      for (int32_t r = 0; r < in_slab; r += 16) {
        out = pack_fragment(
            std::min(16, in_slab - r), 16,
            [&](int32_t i, int32_t j) { return value(64 * slab + r + i, k + j); }, out);
      }
    }
  }
}

// B: tiles of 128 rows, in them steps of 16 ranks, in them 16 rows each.
template <class Value>
void pack_expand(int32_t rank, int32_t num_tiles, Value value, uint8_t* out) {
  for (int32_t tile = 0; tile < num_tiles; ++tile) {
    for (int32_t step = 0; step < rank_steps(rank); ++step) {
      for (int32_t r = 0; r < 128; r += 16) {
        out = pack_fragment(
            16, step_width(rank, step),
            [&](int32_t i, int32_t j) { return value(tile, r + i, 16 * step + j); }, out);
      }
    }
  }
}

// A of down: tiles of 64 features, in them steps of 16 ranks, in them 16 features each.
void pack_down_shrink(const LoraPair& down, int32_t rank, int32_t width, uint8_t* out) {
  for (int32_t tile = 0; tile < width / 64; ++tile) {
    for (int32_t step = 0; step < rank_steps(rank); ++step) {
      for (int32_t f = 0; f < 64; f += 16) {
        out = pack_fragment(
            step_width(rank, step), 16,
            [&](int32_t i, int32_t j) {
              return at(down, down.a, 16 * step + i, 64 * tile + f + j, width);
            },
            out);
      }
    }
  }
}

}  // namespace

int64_t expert_gate_up_bytes(const MoeSizes& s) {
  return int64_t{s.moe_intermediate_size / 64} * weight_rows_bytes(s.weight_format, s.hidden_size);
}

int64_t expert_down_bytes(const MoeSizes& s) {
  return int64_t{s.hidden_size / 128} * weight_rows_bytes(s.weight_format, s.moe_intermediate_size);
}

void pack_expert(const ExpertWeights& expert, uint8_t* gate_up, uint8_t* down) {
  const WeightFormat format = expert.gate.format;
  for (const WeightMatrix* w : {&expert.gate, &expert.up, &expert.down}) {
    BRAID_CHECK(w->format == format);
    BRAID_CHECK_EQ(w->rows % 128, 0);
    BRAID_CHECK_EQ(w->cols % 128, 0);
  }
  const int32_t hidden = expert.gate.cols, width = expert.down.cols;
  for (int32_t feature = 0; feature < width; feature += 64) {
    const auto row_of = [&](int32_t r) {
      return MatrixRow{gate_up_is_up(r) ? expert.up : expert.gate, feature + gate_up_feature(r)};
    };
    pack_rows(format, hidden, row_of, gate_up);
    gate_up += weight_rows_bytes(format, hidden);
  }
  for (int32_t row = 0; row < hidden; row += 128) {
    const auto row_of = [&](int32_t r) { return MatrixRow{expert.down, row + r}; };
    pack_rows(format, width, row_of, down);
    down += weight_rows_bytes(format, width);
  }
}

MoeAdapterSlot MoeAdapterLayout::placed_at(const void* bytes_at) const {
  MoeAdapterSlot placed = slot;
  for (const uint8_t** part :
       {&placed.shrink_gate_up, &placed.expand_gate_up, &placed.shrink_down, &placed.expand_down})
    *part = static_cast<const uint8_t*>(bytes_at) + reinterpret_cast<uintptr_t>(*part);
  return placed;
}

MoeAdapterLayout moe_adapter_layout(const MoeSizes& sizes, const ExpertLora* experts) {
  const int32_t num_experts = sizes.all_experts();
  const int32_t hidden = sizes.hidden_size, width = sizes.moe_intermediate_size;
  MoeAdapterLayout layout;
  MoeAdapterSlot& slot = layout.slot;
  int32_t rank_gate_up = 0, rank_down = 0;
  bool one_a = true, shared_a = true, shared_b = true;
  const ExpertLora& first = experts[0];
  for (int32_t e = 0; e < num_experts; ++e) {
    const ExpertLora& lora = experts[e];
    rank_gate_up = std::max({rank_gate_up, lora.gate.rank, lora.up.rank});
    rank_down = std::max(rank_down, lora.down.rank);
    one_a = one_a && lora.gate.a == lora.up.a && lora.gate.rank == lora.up.rank;
    shared_a = shared_a && lora.gate.a == first.gate.a && lora.up.a == first.up.a &&
               lora.gate.rank == first.gate.rank && lora.up.rank == first.up.rank;
    shared_b = shared_b && lora.down.b_t == first.down.b_t && lora.down.rank == first.down.rank &&
               lora.down.scaling == first.down.scaling;
    take_larger(slot.scaling_gate, lora.gate);
    take_larger(slot.scaling_up, lora.up);
    take_larger(slot.scaling_down, lora.down);
  }
  // With one expert nothing is shared, and the pair's own A is as good.
  shared_a = shared_a && num_experts > 1;
  slot.rank_gate_up = up_to_8(rank_gate_up);
  slot.rank_down = up_to_8(rank_down);
  slot.one_a = one_a;
  const int32_t rg = slot.rank_gate_up, rd = slot.rank_down;
  const int64_t shrink_gate_up = int64_t{2} * hidden * (one_a ? rg : 2 * rg);
  const int64_t expand_gate_up = width / 64 * expand_tile_bytes(rg);
  const int64_t shrink_down = width / 64 * down_shrink_tile_bytes(rd);
  const int64_t expand_down = hidden / 128 * expand_tile_bytes(rd);
  slot.shrink_gate_up_stride = shared_a ? 0 : shrink_gate_up;
  slot.expand_gate_up_stride = expand_gate_up;
  slot.shrink_down_stride = shrink_down;
  slot.expand_down_stride = shared_b ? 0 : expand_down;

  const auto place = [&](const uint8_t*& part, int64_t stride, int64_t size) {
    part = reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(layout.bytes));
    layout.bytes += stride == 0 ? size : num_experts * stride;
  };
  place(slot.shrink_gate_up, slot.shrink_gate_up_stride, shrink_gate_up);
  place(slot.expand_gate_up, slot.expand_gate_up_stride, expand_gate_up);
  place(slot.shrink_down, slot.shrink_down_stride, shrink_down);
  place(slot.expand_down, slot.expand_down_stride, expand_down);
  return layout;
}

void pack_moe_adapter(const MoeSizes& sizes, const ExpertLora* experts,
                      const MoeAdapterLayout& layout, uint8_t* out_bytes) {
  const int32_t hidden = sizes.hidden_size, width = sizes.moe_intermediate_size;
  const MoeAdapterSlot to = layout.placed_at(out_bytes);
  const int32_t rg = to.rank_gate_up, rd = to.rank_down;
  const auto out = [](const uint8_t* part) { return const_cast<uint8_t*>(part); };
  for (int32_t e = 0; e < sizes.all_experts(); ++e) {
    const ExpertLora& lora = experts[e];
    if (e == 0 || to.shrink_gate_up_stride != 0)
      pack_shrink(lora, rg, to.one_a, hidden,
                  out(to.shrink_gate_up + e * to.shrink_gate_up_stride));
    const auto gate_up = [&](int32_t tile, int32_t row, int32_t r) {
      const bool is_up = gate_up_is_up(row);
      return at_of_b(is_up ? lora.up : lora.gate, is_up ? to.scaling_up : to.scaling_gate, r,
                     64 * tile + gate_up_feature(row), width);
    };
    pack_expand(rg, width / 64, gate_up, out(to.expand_gate_up + e * to.expand_gate_up_stride));
    pack_down_shrink(lora.down, rd, width, out(to.shrink_down + e * to.shrink_down_stride));
    if (e == 0 || to.expand_down_stride != 0) {
      const auto down = [&](int32_t tile, int32_t row, int32_t r) {
        return at_of_b(lora.down, to.scaling_down, r, 128 * tile + row, hidden);
      };
      pack_expand(rd, hidden / 128, down, out(to.expand_down + e * to.expand_down_stride));
    }
  }
}

PackedMoeAdapter pack_moe_adapter(const MoeSizes& sizes, const ExpertLora* experts) {
  PackedMoeAdapter packed = {.layout = moe_adapter_layout(sizes, experts)};
  packed.bytes.resize(static_cast<size_t>(packed.layout.bytes));
  pack_moe_adapter(sizes, experts, packed.layout, packed.bytes.data());
  return packed;
}

}  // namespace braid::kernels

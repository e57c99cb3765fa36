#include "kernels/moe_gemm/pack.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/lora/pack_fragment.h"
#include "kernels/moe_gemm/layout.h"

namespace braid::kernels {
namespace {

const uint8_t* codes(const WeightMatrix& w) { return static_cast<const uint8_t*>(w.data); }

float block_scale(const WeightMatrix& w, int32_t row, int32_t column) {
  return w.block_scale[int64_t{row / 128} * ((w.cols + 127) / 128) + column / 128];
}

// 128 rows given one by one, and two scales for each 128 columns: of rows 0..7 and of rows 8..15 of
// each 16.
template <class RowOf, class ScalesOf>
void pack_rows(RowOf row_of, ScalesOf scales_of, int32_t columns, uint8_t* out) {
  const int32_t depth = columns / 128;
  for (int32_t k = 0; k < depth; ++k) {
    uint8_t* const tile = out + k * kWeightTileBytes;
    for (int32_t r = 0; r < 128; ++r) {
      for (int32_t byte = 0; byte < 128; byte += 16)
        std::memcpy(tile + swizzled(r, byte), row_of(r) + 128 * k + byte, 16);
    }
    const std::array<float, 2> scales = scales_of(128 * k);
    std::memcpy(out + depth * kWeightTileBytes + 8 * k, scales.data(), 8);
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
  return int64_t{s.moe_intermediate_size / 64} * weight_rows_bytes(s.hidden_size / 128);
}

int64_t expert_down_bytes(const MoeSizes& s) {
  return int64_t{s.hidden_size / 128} * weight_rows_bytes(s.moe_intermediate_size / 128);
}

void pack_expert(const ExpertWeights& expert, uint8_t* gate_up, uint8_t* down) {
  for (const WeightMatrix* w : {&expert.gate, &expert.up, &expert.down}) {
    BRAID_CHECK(w->format == WeightFormat::kFp8Block128);
    BRAID_CHECK_EQ(w->rows % 128, 0);
    BRAID_CHECK_EQ(w->cols % 128, 0);
  }
  for (int32_t tile = 0; tile < expert.gate.rows / 64; ++tile) {
    pack_rows(
        [&](int32_t r) {
          const WeightMatrix& w = gate_up_is_up(r) ? expert.up : expert.gate;
          return codes(w) + int64_t{64 * tile + gate_up_feature(r)} * w.cols;
        },
        [&](int32_t k) {
          return std::array{block_scale(expert.gate, 64 * tile, k),
                            block_scale(expert.up, 64 * tile, k)};
        },
        expert.gate.cols, gate_up);
    gate_up += weight_rows_bytes(expert.gate.cols / 128);
  }
  for (int32_t row = 0; row < expert.down.rows; row += 128) {
    pack_rows([&](int32_t r) { return codes(expert.down) + int64_t{row + r} * expert.down.cols; },
              [&](int32_t k) {
                const float scale = block_scale(expert.down, row, k);
                return std::array{scale, scale};
              },
              expert.down.cols, down);
    down += weight_rows_bytes(expert.down.cols / 128);
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

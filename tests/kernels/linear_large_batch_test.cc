// How the kernels of large batches of linear layers address what the others packed: emulated on the
// host.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "kernels/linear/layout.h"
#include "kernels/linear/pack.h"
#include "tests/kernels/random_weights.h"

namespace braid::test {
namespace {

using kernels::LinearShape;

const LinearShape kShapes[] = {
    {.in = 128, .slice_out = {8}},
    {.in = 576, .slice_out = {200}},
    {.in = 576, .slice_out = {328}},
    {.in = 192, .num_slices = 2, .slice_out = {64, 8}},
    {.in = 192, .num_slices = 3, .slice_out = {64, 64, 72}},
    {.in = 320, .num_slices = 3, .slice_out = {192, 64, 64}},
    {.in = 128, .num_slices = 3, .slice_out = {576, 192, 200}},
};

// Every 16 rows of W have their slice once, in a tile's order.
TEST(LinearLargeBatch, TilesMeetEverySliceOnce) {
  for (const LinearShape& shape : kShapes) {
    int32_t slice = 0, piece = 0;  // that come next
    for (int32_t tile = 0; tile < kernels::num_row_tiles(shape); ++tile) {
      int32_t next = 0;
      for (const kernels::SliceInTile& part : kernels::tile_slices(shape, tile).of) {
        if (part.begin == part.end) continue;
        EXPECT_EQ(part.begin, next);
        EXPECT_EQ(part.slice, slice);
        EXPECT_EQ(part.first, piece);
        next = part.end, piece += part.end - part.begin;
        if (16 * piece >= shape.slice_out[slice]) ++slice, piece = 0;
      }
      EXPECT_LE(next, 8);
    }
    EXPECT_EQ(slice, shape.num_slices);
  }
}

// B as the loading warp copies it in pieces of 16 rows and up to 16 ranks, and as lanes take it for
// mma's B operand.
TEST(LinearLargeBatch, PiecesAreTheRowsOfB) {
  std::mt19937 random(1);
  for (const LinearShape& shape : kShapes) {
    const int32_t ranks[] = {8, 20, 64};
    std::vector<RandomLora> loras;
    std::vector<LoraPair> pairs;
    for (int32_t s = 0; s < shape.num_slices; ++s)
      loras.emplace_back(random, ranks[s], shape.in, shape.slice_out[s], 1.0f);
    for (const RandomLora& lora : loras) pairs.push_back(lora.view());
    const kernels::PackedLinearAdapter packed = kernels::pack_linear_adapter(shape, pairs);
    const kernels::LinearAdapterSlot slot = packed.placed_at(packed.bytes.data());
    std::vector<int32_t> seen(static_cast<size_t>(shape.out()), 0);
    for (int32_t tile = 0; tile < kernels::num_row_tiles(shape); ++tile) {
      for (const kernels::SliceInTile& part : kernels::tile_slices(shape, tile).of) {
        if (part.begin == part.end) continue;
        const int32_t rank = slot.rank[part.slice], rows = shape.slice_out[part.slice];
        const LoraPair& pair = pairs[static_cast<size_t>(part.slice)];
        for (int32_t g = part.begin; g < part.end; ++g) {
          for (int32_t i = 0; i < 16 && 128 * tile + 16 * g + i < shape.out(); ++i)
            ++seen[static_cast<size_t>(128 * tile + 16 * g + i)];
          for (int32_t step = 0; 16 * step < rank; ++step) {
            const bool whole = rank - 16 * step >= 16;
            const uint8_t* const piece = slot.expand[part.slice] + int64_t{part.first} * 32 * rank +
                                         (g - part.begin) * 32 * rank + step * 512;
            for (int32_t lane = 0; lane < 32; ++lane) {
              for (int32_t word = 0; word < (whole ? 4 : 2); ++word) {
                Bf16 two[2];
                std::memcpy(two, piece + lane * (whole ? 16 : 8) + 4 * word, 4);
                // {x, z} are the lower 8 rows, {y, w} the upper ones; z and w the upper 8 ranks.
                const int32_t row = 16 * (part.first + g - part.begin) + lane / 4 + word % 2 * 8;
                for (int32_t i = 0; i < 2; ++i) {
                  const int32_t r = 16 * step + word / 2 * 8 + 2 * (lane % 4) + i;
                  const bool there = r < pair.rank && row < rows;
                  const Bf16 want = there ? pair.b_t[int64_t{r} * rows + row] : Bf16{};
                  ASSERT_EQ(to_float(two[i]), to_float(want)) << row << " " << r;
                }
              }
            }
          }
        }
      }
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), shape.out());
  }
}

TEST(LinearLargeBatch, EveryRankOfARowHasAPlaceOfItsOwn) {
  constexpr int32_t kTokens = 300, kTotalRank = 48;
  std::set<int64_t> places;
  for (int32_t octet = 0; octet < kTotalRank / 8; ++octet) {
    for (int32_t row = 0; row < kTokens; ++row)
      places.insert(kernels::u_octet_at(octet, row, kTokens));
  }
  EXPECT_EQ(places.size(), size_t{kTokens} * kTotalRank / 8);
  EXPECT_EQ(*places.begin(), 0);
  EXPECT_EQ(*places.rbegin(), int64_t{kTokens} * kTotalRank - 8);
}

}  // namespace
}  // namespace braid::test

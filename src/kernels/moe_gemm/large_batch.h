#pragma once

#include <cstdint>

#include "kernels/moe_gemm/moe_layer.h"

// The MoE layer of large batches, of more than 256 tokens: how they are cut into work, which
// routing, the GEMMs and the shrinks of LoRA agree on, and their kernels.
namespace braid::kernels {

// Tokens of a tile at most.
inline constexpr int32_t kLargeTileTokens = 256;
// Tiles of so many tokens or less are multiplied with two tiles of weight rows by each CTA, larger
// ones with one.
inline constexpr int32_t kLargeHalfTokens = 128;

// Tokens come in blocks of 64. An expert's `count` tokens are cut into tiles of four blocks and
// what is left: the two CTAs that share a large tile wait for each other, and one of three blocks
// takes them as long as one of four.
constexpr int32_t large_num_tiles(int32_t count) {
  return (count + kLargeTileTokens - 1) / kLargeTileTokens;
}
// Of all of them but the last.
constexpr int32_t large_tile_tokens(int32_t count) {
  return count < kLargeTileTokens ? count : kLargeTileTokens;
}
// Entries of a tile in the GEMMs' list. An entry is all of the matrix for tiles of up to
// kLargeHalfTokens, half of it for the others.
constexpr int32_t large_num_entries(int32_t tile_tokens) {
  return tile_tokens <= kLargeHalfTokens ? 1 : 2;
}

// What MoeTokenTile::num_runs holds in that list: which half, and the runs.
inline constexpr int32_t kSecondHalf = 1 << 16;

// u and v of the shrinks, as BF16 and scaled: a token's row for each step of 16 ranks. In the order
// in which lanes need them, lane i % 4 = c takes ranks 2c, 2c + 1, 2c + 8 and 2c + 9: of u for gate
// and then for up, 16 bytes; of v 8 bytes.
inline constexpr int32_t kLargeURowElements = 32;
inline constexpr int32_t kLargeVRowElements = 16;
constexpr int32_t large_u_element(int32_t rank, int32_t of_up) {
  return rank % 8 / 2 * 8 + of_up * 4 + rank / 8 % 2 * 2 + rank % 2;
}
constexpr int32_t large_v_element(int32_t rank) {
  return rank % 8 / 2 * 4 + rank / 8 % 2 * 2 + rank % 2;
}

// Neighbouring tokens of a tile that have the same adapter, and its factors for their expert.
struct alignas(16) MoeLargeRun {
  const uint8_t* expand_gate_up;
  const uint8_t* shrink_down;
  const uint8_t* expand_down;
  float scaling_down;
  int32_t slot;
  int32_t begin;  // in the tile
  int32_t end;
  int32_t rank_gate_up;
  int32_t rank_down;
};

// Chunks at most in which routing counts tokens.
inline constexpr int32_t kLargeChunks = 128;

// Tokens of a run that one shrink item takes at most: A is read once for them. Where gate and up
// have one A, a thread has the sums of both.
inline constexpr int32_t kLargeShrinkTokens = 128;
inline constexpr int32_t kOneAShrinkTokens = 64;

// The kernels of a layer, in this order; then launch_moe_sum. Routing fills `tiles`,
// `other_tiles`, the list of the GEMMs, and x_image; shrink, of batches with adapters, leaves u;
// gate_up leaves h and parts of v, which down adds up. They keep what launch_moe_layer promises.
void launch_large_routing(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);
void launch_large_shrink(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);
void launch_large_gate_up(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);
void launch_large_down(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream);

}  // namespace braid::kernels

#pragma once

// What moe_routing does for large batches, done by every CTA for itself where tokens are so few
// that this is faster than being told: the choice of experts, and the lists of work, in shared
// memory.
//
// All tokens are columns of one tile, in the order of their adapters, and each expert that is hit
// has a tile of all columns: those of tokens that did not choose it are computed and never read.

#include <cstdint>

#include "base/ids.h"
#include "kernels/common/counter.cuh"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {

struct SmallBatch {
  static constexpr int kMaxPairs = kSmallBatchTokens * 17;
  static constexpr int kMaxKeys = 513;  // experts, the shared one last
  static constexpr int kMaxWarps = 5;

  // Of columns.
  MoeAdapterSlot slots[kSmallBatchTokens];
  int32_t slot_of_column[kSmallBatchTokens];
  int32_t token_of_column[kSmallBatchTokens];
  int32_t column_of_token[kSmallBatchTokens];
  uint32_t same_slot[kSmallBatchTokens];  // bits: the columns of the same adapter; 0 without one

  int32_t key_of_pair[kMaxPairs];  // expert, or -1
  uint32_t columns_of_key[kMaxKeys];
  int32_t tile_of_key[kMaxKeys];

  int32_t num_tiles;
  int32_t key_of_tile[kMaxPairs];

  // Shrinks, each of one adapter's columns: in a tile, or, where experts share A, in the batch
  // (key -1). Shrink i has the items from items_before[i] on.
  int32_t num_shrinks;
  int32_t num_items;
  int32_t shrink_key[kMaxPairs + kSmallBatchTokens];
  int32_t shrink_column[kMaxPairs + kSmallBatchTokens];
  int32_t items_before[kMaxPairs + kSmallBatchTokens];

  struct Sums {
    int32_t tiles, shrinks, items;
  };
  Sums of_warp[kMaxWarps];

  __device__ bool shares_a(int column) const { return slots[column].shrink_gate_up_stride == 0; }
  __device__ int shrink_rows(int column) const {
    return slots[column].one_a ? slots[column].rank_gate_up : 2 * slots[column].rank_gate_up;
  }
};

// Before the logits are there: whose token is which column. All threads of the CTA.
__device__ inline void order_columns(const MoeLayerParams& p, SmallBatch& batch) {
  const int lane = threadIdx.x % 32;
  for (int k = threadIdx.x; k < SmallBatch::kMaxKeys; k += blockDim.x) batch.columns_of_key[k] = 0;
  if (threadIdx.x >= 32) return;
  int slot = kNoAdapter;
  if (p.adapters != nullptr && lane < p.num_tokens) slot = p.adapter_slot_of_token[lane];
  int column = 0;
  uint32_t same = 0;
  for (int t = 0; t < p.num_tokens; ++t) {
    const int other = __shfl_sync(kAllLanes, slot, t);
    column += other < slot || (other == slot && t < lane);
  }
  for (int t = 0; t < p.num_tokens; ++t) {
    const int other = __shfl_sync(kAllLanes, slot, t);
    const int its_column = __shfl_sync(kAllLanes, column, t);
    if (other == slot && slot != kNoAdapter) same |= 1u << its_column;
  }
  if (lane < p.num_tokens) {
    batch.slot_of_column[column] = slot;
    batch.token_of_column[column] = lane;
    batch.column_of_token[lane] = column;
    batch.same_slot[column] = same;
  }
  if (p.adapters == nullptr) return;
  __syncwarp();
  constexpr int kWords = sizeof(MoeAdapterSlot) / sizeof(int64_t);
  for (int i = lane; i < p.num_tokens * kWords; i += 32) {
    const int its_slot = batch.slot_of_column[i / kWords];
    if (its_slot == kNoAdapter) continue;
    reinterpret_cast<int64_t*>(batch.slots + i / kWords)[i % kWords] =
        reinterpret_cast<const int64_t*>(p.adapters + its_slot)[i % kWords];
  }
}

struct Choice {
  int expert;
  float weight;
};

// Lane k < K gets the k-th expert of the token.
__device__ inline Choice choose_for(const MoeLayerParams& p, int token, int lane) {
  Choice choice;
  if (p.sizes.num_experts <= 128) {
    route_token<4>(p, token, lane, &choice.expert, &choice.weight);
  } else if (p.sizes.num_experts <= 256) {
    route_token<8>(p, token, lane, &choice.expert, &choice.weight);
  } else {
    route_token<16>(p, token, lane, &choice.expert, &choice.weight);
  }
  return choice;
}

// Chooses the experts and makes the lists. All threads of the CTA; ends with a barrier.
__device__ inline void route_small_batch(const MoeLayerParams& p, SmallBatch& batch) {
  const bool write_out = blockIdx.x == 0;  // what the sum of pairs reads
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, num_warps = blockDim.x / 32;
  const int per_token = p.sizes.pairs_per_token(), top_k = p.sizes.top_k;
  const int num_pairs = p.num_tokens * per_token, num_experts = p.sizes.num_experts;
  // --- choose; the producer's warp has the first token ---
  for (int t = num_warps - 1 - warp; t < p.num_tokens; t += num_warps) {
    const auto [expert, weight] = choose_for(p, t, lane);
    if (lane >= per_token) continue;
    const int key = lane < top_k ? (expert == kNoExpert ? -1 : expert) : num_experts;
    batch.key_of_pair[t * per_token + lane] = key;
    if (key >= 0) atomicOr(&batch.columns_of_key[key], 1u << batch.column_of_token[t]);
    if (write_out) {
      if (lane < top_k) p.topk_ids[t * top_k + lane] = expert;
      const float of_shared = p.shared_weight != nullptr ? p.shared_weight[t] : 1.0f;
      p.workspace.weight_of_pair[t * per_token + lane] = lane < top_k ? weight : of_shared;
    }
  }
  __syncthreads();
  // --- a thread for each pair: the first of an expert begins a tile, the first of an adapter in it
  // a shrink; behind them a thread for each column whose adapter's experts share A ---
  const int pair = threadIdx.x;
  int key = -1, column = 0;
  bool begins_tile = false, begins_shrink = false;
  if (pair < num_pairs) {
    key = batch.key_of_pair[pair];
    column = batch.column_of_token[pair / per_token];
    const uint32_t before = (1u << column) - 1;
    const uint32_t earlier = key >= 0 ? batch.columns_of_key[key] & before : 0;
    begins_tile = key >= 0 && earlier == 0;
    begins_shrink = key >= 0 && batch.same_slot[column] != 0 &&
                    (earlier & batch.same_slot[column]) == 0 && !batch.shares_a(column);
  } else if (pair - num_pairs < p.num_tokens) {
    column = pair - num_pairs;
    begins_shrink = batch.same_slot[column] != 0 && __ffs(batch.same_slot[column]) == column + 1 &&
                    batch.shares_a(column);
  }
  const int items = begins_shrink ? (batch.shrink_rows(column) + 63) / 64 * kShrinkParts : 0;
  const unsigned tiles_here = __ballot_sync(kAllLanes, begins_tile);
  const unsigned shrinks_here = __ballot_sync(kAllLanes, begins_shrink);
  int items_up_to = items;
  for (int step = 1; step < 32; step *= 2) {
    const int left = __shfl_up_sync(kAllLanes, items_up_to, step);
    if (lane >= step) items_up_to += left;
  }
  if (lane == 31) {
    batch.of_warp[warp] = {__popc(tiles_here), __popc(shrinks_here), items_up_to};
  }
  __syncthreads();
  SmallBatch::Sums before = {}, all = {};
  for (int w = 0; w < num_warps; ++w) {
    const SmallBatch::Sums of = batch.of_warp[w];
    if (w < warp) before.tiles += of.tiles, before.shrinks += of.shrinks, before.items += of.items;
    all.tiles += of.tiles, all.shrinks += of.shrinks, all.items += of.items;
  }
  const unsigned lower = (1u << lane) - 1;
  if (begins_tile) {
    const int tile = before.tiles + __popc(tiles_here & lower);
    batch.tile_of_key[key] = tile;
    batch.key_of_tile[tile] = key;
  }
  if (begins_shrink) {
    const int at = before.shrinks + __popc(shrinks_here & lower);
    batch.shrink_key[at] = key;
    batch.shrink_column[at] = column;
    batch.items_before[at] = before.items + items_up_to - items;
  }
  if (threadIdx.x == 0) {
    batch.num_tiles = all.tiles, batch.num_shrinks = all.shrinks, batch.num_items = all.items;
  }
  __syncthreads();
  if (write_out && pair < num_pairs) {
    p.workspace.row_of_pair[pair] =
        key < 0 ? -1 : kSmallBatchTokens * batch.tile_of_key[key] + column;
  }
}

// --- one warp ---

__device__ inline MoeTokenTile small_batch_tile(const SmallBatch& batch, int tile) {
  return {.expert = batch.key_of_tile[tile],
          .first_row = kSmallBatchTokens * tile,
          .num_tokens = kSmallBatchTokens,
          .num_runs = 1};
}

// Column `column` of a tile. An adapter's run there goes from the first to the last of its tokens
// that chose the expert.
__device__ inline MoeRow small_batch_row(const MoeLayerParams& p, const SmallBatch& batch,
                                         const MoeTokenTile& tile, int column) {
  MoeRow row = {
      .token = -1, .slot = kNoAdapter, .u_row = tile.first_row + column, .num_shrinks = 1};
  if (column >= p.num_tokens || batch.same_slot[column] == 0) return row;
  const uint32_t chose = batch.columns_of_key[tile.expert] & batch.same_slot[column];
  if (__ffs(chose) <= column + 1 && column < 32 - __clz(chose))
    row.slot = batch.slot_of_column[column];
  if (batch.shares_a(column)) row.u_row = p.workspace.max_rows + column;
  return row;
}

// Tells the down kernel: each CTA writes some tiles and their rows.
__device__ inline void list_small_batch(const MoeLayerParams& p, const SmallBatch& batch,
                                        int lane) {
  const MoeWorkspace& w = p.workspace;
  int listed = 0;
  for (int i = blockIdx.x; i < batch.num_tiles; i += gridDim.x, ++listed) {
    const MoeTokenTile tile = small_batch_tile(batch, i);
    if (lane == 0) w.tiles[i] = tile;
    if (p.adapters != nullptr && lane < kSmallBatchTokens)
      w.rows[tile.first_row + lane] = small_batch_row(p, batch, tile, lane);
  }
  if (blockIdx.x == 0) {
    listed += kListedUnit * (batch.num_tiles + 1);
    if (lane == 0) w.counts->num_tiles = batch.num_tiles;
  }
  if (listed == 0) return;
  __syncwarp();
  if (lane == 0) count_release(&w.counts->listed, listed);
}

// Item `index` of the batch's shrinks, one part each, and the column of its first token.
__device__ inline MoeShrinkItem small_batch_item(const MoeLayerParams& p, const SmallBatch& batch,
                                                 int index, int lane, int* first_column) {
  int shrink = -1;
  for (int begin = 0; begin < batch.num_shrinks; begin += 32) {
    const int i = begin + lane;
    shrink +=
        __popc(__ballot_sync(kAllLanes, i < batch.num_shrinks && batch.items_before[i] <= index));
  }
  const int key = batch.shrink_key[shrink], column = batch.shrink_column[shrink];
  const int within = index - batch.items_before[shrink], slab = within / kShrinkParts;
  const MoeAdapterSlot& slot = batch.slots[column];
  const uint32_t columns =
      key >= 0 ? batch.columns_of_key[key] & batch.same_slot[column] : batch.same_slot[column];
  MoeShrinkItem item;
  item.factor = slot.shrink_gate_up + (key >= 0 ? key * slot.shrink_gate_up_stride : 0) +
                int64_t{slab} * 64 * 2 * p.sizes.hidden_size;
  item.first_row = key >= 0 ? kSmallBatchTokens * batch.tile_of_key[key] + column
                            : p.workspace.max_rows + column;
  item.num_tokens = 32 - __clz(columns) - column;
  item.slab = slab;
  item.rank = slot.rank_gate_up;
  item.one_a = slot.one_a;
  item.ready_index =
      key >= 0 ? item.first_row : p.workspace.max_rows + batch.slot_of_column[column];
  item.first_part = within % kShrinkParts;
  item.num_parts = 1;
  item.scaling_gate = slot.scaling_gate;
  item.scaling_up = slot.scaling_up;
  *first_column = column;
  return item;
}

}  // namespace braid::kernels

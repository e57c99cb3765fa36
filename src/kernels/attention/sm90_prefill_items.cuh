#pragma once

// Which rows a CTA of prefill attention takes, and in which order.

#include <cstdint>

#include "kernels/attention/attention_bf16.h"

namespace braid::kernels {

// Up to kRows rows of one sequence and KV head: one piece of work. A row is a query and one of the
// heads that share the KV head: row r is query r / group, head r % group.
struct PrefillItem {
  int32_t sequence;  // -1: there are no more
  int32_t kv_head;
  int32_t first_row, num_rows;
  int32_t first_token;    // of the sequence
  int32_t position0;      // of the sequence's first query
  int32_t context_len;    // keys that the cache holds
  int32_t num_key_tiles;  // that some row sees
};

// All items of a launch, those with the most keys first whatever their sequence; each worker takes
// every num_workers-th, in turn from the left and from the right, so that shares come out even. All
// lanes of a warp call together.
template <int kRows, int kTileKeys>
class PrefillItems {
 public:
  __device__ PrefillItems(const AttentionBf16Params& p, int worker, int num_workers, int lane)
      : p_(p),
        group_(p.num_heads / p.kv.num_kv_heads),
        worker_(worker),
        num_workers_(num_workers),
        lane_(lane),
        level_(p.max_kv_blocks * p.kv.block_size / kTileKeys + 1) {
    const int per_lane = (p.num_sequences + 31) / 32;
    first_ = min(lane * per_lane, p.num_sequences);
    end_ = min(first_ + per_lane, p.num_sequences);
  }

  __device__ __forceinline__ PrefillItem next() {
    const int in_turn = round_ % 2 == 0 ? worker_ : num_workers_ - 1 - worker_;
    const int rank = round_++ * num_workers_ + in_turn;
    return find(rank / p_.kv.num_kv_heads, rank % p_.kv.num_kv_heads);
  }

 private:
  // Tiles of rows of a sequence that see `tiles` tiles of keys or more: its last ones.
  __device__ __forceinline__ int tiles_of(int s, int tiles) const {
    const int token0 = __ldg(p_.query_indptr + s);
    const int num_queries = __ldg(p_.query_indptr + s + 1) - token0;
    const int num_rows = num_queries * group_, position0 = __ldg(p_.context_len + s) - num_queries,
              first = ((tiles - 1) * kTileKeys - position0) * group_;  // the first such row
    return first >= num_rows ? 0 : (num_rows + kRows - 1) / kRows - max(first, 0) / kRows;
  }
  __device__ __forceinline__ int sum_of_lane(int tiles) const {
    int sum = 0;
    for (int s = first_; s < end_; ++s) sum += tiles_of(s, tiles);
    return sum;
  }
  __device__ __forceinline__ int sum_of_all(int tiles) const {
    return static_cast<int>(__reduce_add_sync(~0u, static_cast<unsigned>(sum_of_lane(tiles))));
  }

  // The row tile of this rank.
  __device__ __forceinline__ PrefillItem find(int rank, int kv_head) {
    PrefillItem item = {.sequence = -1};
    // The most keys with which more tiles than `rank` are there; fewer than for the rank before.
    if (sum_of_all(level_) <= rank) {
      int low = 0, high = level_;
      while (high - low > 1) {
        const int middle = (low + high) / 2;
        (sum_of_all(middle) > rank ? low : high) = middle;
      }
      if (low == 0) return item;
      level_ = low;
    }
    // Among those with as many, sequence after sequence.
    const int longer = sum_of_lane(level_ + 1), sum = sum_of_lane(level_) - longer;
    const int index =
        rank - static_cast<int>(__reduce_add_sync(~0u, static_cast<unsigned>(longer)));
    int before = sum;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, before, step);
      if (lane_ >= step) before += other;
    }
    before -= sum;
    const bool mine = before <= index && index < before + sum;
    int tile = 0;
    if (mine) {
      int s = first_, count = 0;
      for (;; ++s, before += count) {
        count = tiles_of(s, level_) - tiles_of(s, level_ + 1);
        if (index < before + count) break;
      }
      item.sequence = s;
      tile = tiles_of(s, 1) - tiles_of(s, level_) + index - before;
    }
    const int owner = __ffs(static_cast<int>(__ballot_sync(~0u, mine))) - 1;
    item.sequence = __shfl_sync(~0u, item.sequence, owner);
    tile = __shfl_sync(~0u, tile, owner);
    item.first_token = __ldg(p_.query_indptr + item.sequence);
    const int num_queries = __ldg(p_.query_indptr + item.sequence + 1) - item.first_token;
    item.kv_head = kv_head;
    item.first_row = tile * kRows;
    item.num_rows = min(kRows, num_queries * group_ - item.first_row);
    item.context_len = __ldg(p_.context_len + item.sequence);
    item.position0 = item.context_len - num_queries;
    item.num_key_tiles =
        (item.position0 + (item.first_row + item.num_rows - 1) / group_) / kTileKeys + 1;
    return item;
  }

  const AttentionBf16Params& p_;
  const int group_, worker_, num_workers_, lane_;
  int level_, round_ = 0;
  int first_, end_;  // sequences of this lane
};

}  // namespace braid::kernels

#pragma once

// Device code of the routing kernel: choose experts, sort pairs, list the work, quantise x.

#include <cstdint>

#include "base/ids.h"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/quantize_128.cuh"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "kernels/moe_routing/choose_experts.cuh"
#include "kernels/moe_routing/routing_scratch.h"

namespace braid::kernels {

inline constexpr int kRoutingThreads = 512;
inline constexpr int kRoutingWarps = kRoutingThreads / 32;
inline constexpr int kMaxExperts = 512;

// What of MoePlan concerns routing.
struct RoutingPlan {
  int32_t tile_tokens;
  int32_t num_guessed_experts;
  bool lists_lora_runs;  // for kernels of their own
};

// Where the sort keeps its arrays: shared memory for decode batches, global memory for larger ones.
struct RoutingScratch {
  int32_t* expert_of_pair;  // [T, K + shared], sort keys: 0 is the shared expert where there is one
  int32_t* row_of_pair;     // [T, K + shared]
  int32_t* token_order;     // [T], tokens sorted by adapter
  int32_t* order_of_token;  // [T], the inverse
  int32_t* slot_of_token;   // [T]
  int32_t* token_of_row;    // [R], -1 where a tile's rows end
  int32_t* slot_of_row;     // [R], kNoAdapter there
  int32_t* count;           // [keys]
  int32_t* first_row;       // [keys]
  int32_t* first_tile;      // [keys]
  int32_t* first_other;     // [keys], the same among the tiles that are no guess
  int32_t* key_of_tile;     // [tiles]
  int32_t* slot_begin;      // [S + 2], in token_order; slot -1 comes first
  uint32_t* members;        // shared memory only: [keys, words] of bits, see sort_pairs_by_bits()
};

__device__ inline RoutingScratch routing_scratch(int32_t* at, int32_t num_pairs, int32_t num_tokens,
                                                 int32_t max_rows, int32_t num_keys,
                                                 int32_t num_slots) {
  RoutingScratch s;
  const auto take = [&](int32_t n) {
    int32_t* const begin = at;
    at += n;
    return begin;
  };
  s.expert_of_pair = take(num_pairs);
  s.row_of_pair = take(num_pairs);
  s.token_order = take(num_tokens);
  s.order_of_token = take(num_tokens);
  s.slot_of_token = take(num_tokens);
  s.token_of_row = take(max_rows);
  s.slot_of_row = take(max_rows);
  s.count = take(num_keys);
  s.first_row = take(num_keys);
  s.first_tile = take(num_keys);
  s.first_other = take(num_keys);
  s.key_of_tile = take(max_rows / 8 + 1);
  s.slot_begin = take(num_slots + 2);
  s.members = reinterpret_cast<uint32_t*>(at);
  return s;
}

// --- one CTA: stable counting sort ---

// Calls emit(i, position) for every i in [0, n) with key_of(i) >= 0. Positions of a key count up
// from next[key] in the order of i. Ends with a barrier.
template <class KeyOf, class Emit>
__device__ void stable_positions(int n, int num_keys, int32_t* next, int32_t* warp_count,
                                 KeyOf key_of, Emit emit) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int begin = 0; begin < n; begin += kRoutingThreads) {
    const int warps = min(kRoutingWarps, (n - begin + 31) / 32);
    for (int i = threadIdx.x; i < warps * num_keys; i += kRoutingThreads) warp_count[i] = 0;
    __syncthreads();
    const int i = begin + threadIdx.x;
    const int key = i < n ? key_of(i) : -1;
    const unsigned peers = __match_any_sync(kAllLanes, key);
    const int rank = __popc(peers & ((1u << lane) - 1));
    if (key >= 0 && rank == 0) warp_count[warp * num_keys + key] = __popc(peers);
    __syncthreads();
    for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) {
      int at = next[k];
      for (int w = 0; w < warps; ++w) {
        const int count = warp_count[w * num_keys + k];
        warp_count[w * num_keys + k] = at;
        at += count;
      }
      next[k] = at;
    }
    __syncthreads();
    if (key >= 0) emit(i, warp_count[warp * num_keys + key] + rank);
    __syncthreads();
  }
}

// Exclusive scan over the CTA of one value a thread; *total is the sum of all. No barrier at its
// end: of_warp is the caller's until the next one.
template <class T>
__device__ inline T scan_exclusive(T value, T* total, T* of_warp) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto scan = [&](T x) {
#pragma unroll 1
    for (int step = 1; step < 32; step *= 2) {
      const T left = __shfl_up_sync(kAllLanes, x, step);
      if (lane >= step) x += left;
    }
    return x;
  };
  const T inclusive = scan(value);
  if (lane == 31) of_warp[warp] = inclusive;
  __syncthreads();
  const T of_warps = scan(lane < kRoutingWarps ? of_warp[lane] : T{0});
  const T before = __shfl_sync(kAllLanes, of_warps, warp > 0 ? warp - 1 : 0);
  *total = __shfl_sync(kAllLanes, of_warps, kRoutingWarps - 1);
  return (warp > 0 ? before : T{0}) + inclusive - value;
}

__device__ inline int shrink_rows(const MoeAdapterSlot& slot) {
  return slot.one_a ? slot.rank_gate_up : 2 * slot.rank_gate_up;
}

// How many rows and tiles there are.
struct SortedSizes {
  int32_t rows, tiles, other_tiles;
};

// Key 0 is the shared expert where there is one.
__device__ inline int expert_of_key(const MoeLayerParams& p, int key) {
  const int shared = p.sizes.num_shared_experts;
  return key < shared ? p.sizes.num_experts : key - shared;
}

// Rows by 8, tiles, and tiles that are no guess, scanned as one number: of any batch, and of one of
// up to 256 tokens.
struct AnyCounts {
  using Number = unsigned long long;
  static constexpr int kTilesBit = 24, kOtherBit = 44;
};
struct FewCounts {
  using Number = unsigned;
  static constexpr int kTilesBit = 10, kOtherBit = 21;
};

// From the counts of the keys: where their rows and tiles begin.
template <class Counts>
__device__ inline SortedSizes place_keys(const MoeLayerParams& p, const RoutingScratch& s,
                                         const RoutingPlan& plan) {
  using Number = typename Counts::Number;
  const int num_keys = p.sizes.all_experts();
  constexpr int kTilesBit = Counts::kTilesBit, kOtherBit = Counts::kOtherBit;
  constexpr Number kRowsMask = (Number{1} << kTilesBit) - 1,
                   kTilesMask = (Number{1} << (kOtherBit - kTilesBit)) - 1;
  __shared__ Number of_warp[2][kRoutingWarps];
  Number before = 0, total;
  const int tile_shift = __ffs(plan.tile_tokens) - 1;
#pragma unroll 1
  for (int begin = 0, turn = 0; begin < num_keys; begin += kRoutingThreads, turn ^= 1) {
    const int k = begin + threadIdx.x;
    const int count = k < num_keys ? s.count[k] : 0;
    const int tiles = (count + plan.tile_tokens - 1) >> tile_shift;
    const bool guessed = count > 0 && expert_of_key(p, k) < plan.num_guessed_experts;
    const Number mine = static_cast<Number>(tiles - guessed) << kOtherBit |
                        static_cast<Number>(tiles) << kTilesBit |
                        static_cast<unsigned>((count + 7) / 8);
    const Number at = before + scan_exclusive(mine, &total, of_warp[turn]);
    if (k < num_keys) {
      s.first_row[k] = 8 * static_cast<int>(at & kRowsMask);
      s.first_tile[k] = static_cast<int>(at >> kTilesBit & kTilesMask);
      s.first_other[k] = static_cast<int>(at >> kOtherBit);
#pragma unroll 1
      for (int j = 0; j < tiles; ++j) s.key_of_tile[s.first_tile[k] + j] = k;
    }
    before += total;
  }
  __syncthreads();
  return {.rows = 8 * static_cast<int>(before & kRowsMask),
          .tiles = static_cast<int>(before >> kTilesBit & kTilesMask),
          .other_tiles = static_cast<int>(before >> kOtherBit)};
}

// The adapters, read from global memory once.
__device__ inline void load_slots(const MoeLayerParams& p, MoeAdapterSlot* slots) {
  constexpr int kWords = sizeof(MoeAdapterSlot) / sizeof(int64_t);
  for (int i = threadIdx.x; i < p.num_slots * kWords; i += kRoutingThreads)
    reinterpret_cast<int64_t*>(slots)[i] = reinterpret_cast<const int64_t*>(p.adapters)[i];
}

// Row `row` goes to pair `pair` of the token.
__device__ inline void place_pair(const MoeLayerParams& p, const RoutingScratch& s, int token,
                                  int pair, int row) {
  s.row_of_pair[pair] = row;
  s.token_of_row[row] = token;
  if (p.adapters != nullptr) s.slot_of_row[row] = s.slot_of_token[token];
}

// Sorts the pairs by (expert, adapter). Leaves everything of `s`.
__device__ inline SortedSizes sort_pairs(const MoeLayerParams& p, const RoutingScratch& s,
                                         int32_t* warp_count, int32_t* next,
                                         const RoutingPlan& plan) {
  const int num_keys = p.sizes.all_experts(), per_token = p.sizes.pairs_per_token();
  const int num_pairs = p.num_tokens * per_token;
  for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) s.count[k] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < num_pairs; i += kRoutingThreads) {
    if (s.expert_of_pair[i] >= 0) atomicAdd(&s.count[s.expert_of_pair[i]], 1);
  }
  __syncthreads();
  const SortedSizes sizes = place_keys<AnyCounts>(p, s, plan);
  for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) next[k] = s.first_row[k];
  for (int r = threadIdx.x; r < sizes.rows; r += kRoutingThreads)
    s.token_of_row[r] = s.slot_of_row[r] = -1;
  // Tokens by adapter first; the stable sort by expert then leaves each expert's pairs in runs.
  if (p.adapters != nullptr) {
    for (int k = threadIdx.x; k < p.num_slots + 2; k += kRoutingThreads) s.slot_begin[k] = 0;
    __syncthreads();
    for (int t = threadIdx.x; t < p.num_tokens; t += kRoutingThreads) {
      const int slot = s.slot_of_token[t] = p.adapter_slot_of_token[t];
      atomicAdd(&s.slot_begin[slot + 1], 1);
    }
    __syncthreads();
    int32_t* const slot_next = warp_count + kRoutingWarps * (p.num_slots + 1);
    if (threadIdx.x == 0) {
      int at = 0;
      for (int k = 0; k <= p.num_slots; ++k) {
        const int count = s.slot_begin[k];
        s.slot_begin[k] = slot_next[k] = at;
        at += count;
      }
      s.slot_begin[p.num_slots + 1] = at;
    }
    __syncthreads();
    stable_positions(
        p.num_tokens, p.num_slots + 1, slot_next, warp_count,
        [&](int t) { return s.slot_of_token[t] + 1; },
        [&](int t, int at) { s.token_order[at] = t, s.order_of_token[t] = at; });
  } else {
    for (int t = threadIdx.x; t < p.num_tokens; t += kRoutingThreads) s.token_order[t] = t;
    __syncthreads();
  }
  const auto pair_at = [&](int i) {
    return s.token_order[i / per_token] * per_token + i % per_token;
  };
  stable_positions(
      num_pairs, num_keys, next, warp_count, [&](int i) { return s.expert_of_pair[pair_at(i)]; },
      [&](int i, int row) { place_pair(p, s, s.token_order[i / per_token], pair_at(i), row); });
  return sizes;
}

// Up to 256 tokens by adapter: token_order, order_of_token, slot_begin. `count` is [8, S + 1]. Ends
// with a barrier.
__device__ inline void order_tokens(const MoeLayerParams& p, const RoutingScratch& s,
                                    int32_t* count) {
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  if (p.adapters == nullptr) {
    for (int i = t; i < p.num_tokens; i += kRoutingThreads)
      s.order_of_token[i] = s.token_order[i] = i;
    __syncthreads();
    return;
  }
  constexpr int kWarps = 8;
  const int num_keys = p.num_slots + 1;  // without adapter first
  for (int i = t; i < kWarps * num_keys; i += kRoutingThreads) count[i] = 0;
  const int key = t < p.num_tokens ? p.adapter_slot_of_token[t] + 1 : -1;
  __syncthreads();
  const unsigned peers = __match_any_sync(kAllLanes, key);
  const int rank = __popc(peers & ((1u << lane) - 1));
  if (key >= 0) {
    s.slot_of_token[t] = key - 1;
    if (rank == 0) count[warp * num_keys + key] = __popc(peers);
  }
  __syncthreads();
  __shared__ int of_warp[2][kRoutingWarps];
  int before = 0, total;
#pragma unroll 1
  for (int begin = 0, turn = 0; begin < num_keys; begin += kRoutingThreads, turn ^= 1) {
    const int k = begin + t;
    int sum = 0;
    for (int w = 0; k < num_keys && w < kWarps; ++w) sum += count[w * num_keys + k];
    int at = before + scan_exclusive(sum, &total, of_warp[turn]);
    before += total;
    if (k >= num_keys) continue;
    s.slot_begin[k] = at;
    for (int w = 0; w < kWarps; ++w) {
      const int of_warp = count[w * num_keys + k];
      count[w * num_keys + k] = at;
      at += of_warp;
    }
  }
  if (t == 0) s.slot_begin[num_keys] = p.num_tokens;
  __syncthreads();
  if (key >= 0) {
    const int order = count[warp * num_keys + key] + rank;
    s.order_of_token[t] = order, s.token_order[order] = t;
  }
  __syncthreads();
}

// The same for up to 256 tokens, faster: for each expert a row of bits says which tokens it has, in
// the order of their adapters; a pair's place among its expert's is a count of bits. After
// order_tokens(); s.members is zero, token_of_row and slot_of_row are -1.
__device__ inline SortedSizes sort_pairs_by_bits(const MoeLayerParams& p, const RoutingScratch& s,
                                                 const RoutingPlan& plan) {
  const int num_keys = p.sizes.all_experts(), per_token = p.sizes.pairs_per_token();
  const int words = (p.num_tokens + 31) / 32;
  // A warp has a token at a time, a lane one of its pairs.
  const auto for_pairs = [&](auto each) {
    const int lane = threadIdx.x % 32;
    if (lane >= per_token) return;
#pragma unroll 1
    for (int t = threadIdx.x / 32; t < p.num_tokens; t += kRoutingWarps) {
      const int pair = t * per_token + lane, key = s.expert_of_pair[pair];
      if (key >= 0) each(t, pair, key, s.order_of_token[t]);
    }
  };
  // --- who is whose ---
  for_pairs([&](int, int, int key, int at) {
    atomicOr(&s.members[key * words + at / 32], 1u << at % 32);
  });
  __syncthreads();
  // From here on the counts of a key's words before each one stand in `before`.
  uint16_t* const before = reinterpret_cast<uint16_t*>(s.members + num_keys * words);
#pragma unroll 1
  for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) {
    int count = 0;
#pragma unroll 1
    for (int i = 0; i < words; ++i) {
      before[k * words + i] = static_cast<uint16_t>(count);
      count += __popc(s.members[k * words + i]);
    }
    // The same thread places the key.
    s.count[k] = count;
  }
  const SortedSizes sizes = place_keys<FewCounts>(p, s, plan);
  for_pairs([&](int t, int pair, int key, int at) {
    const int word = key * words + at / 32;
    const int row =
        s.first_row[key] + before[word] + __popc(s.members[word] & ((1u << at % 32) - 1));
    place_pair(p, s, t, pair, row);
  });
  __syncthreads();
  return sizes;
}

// What a GEMM kernel reads of a tile's tokens, or other kernels where the LoRA plan has them.
__device__ inline void list_row(const MoeLayerParams& p, const RoutingScratch& s,
                                const MoeAdapterSlot* slots, const RoutingPlan& plan, int row) {
  const MoeWorkspace& w = p.workspace;
  const int token = s.token_of_row[row], slot = s.slot_of_row[row];
  MoeRow out = {.token = token, .slot = slot, .u_row = row, .num_shrinks = 1};
  if (slot >= 0 && slots[slot].shrink_gate_up_stride == 0) {
    const int num_tokens = s.slot_begin[slot + 2] - s.slot_begin[slot + 1];
    out.u_row = w.max_rows + s.order_of_token[token];
    out.num_shrinks = (num_tokens + plan.tile_tokens - 1) >> (__ffs(plan.tile_tokens) - 1);
  }
  if (plan.lists_lora_runs) {
    w.token_of_row[row] = token, w.u_row_of_row[row] = out.u_row;
  } else {
    w.rows[row] = out;
  }
}

// The runs of a tile for the LoRA kernels, by one warp. Tiles with adapters have at most 32 tokens.
__device__ inline void list_lora_runs(const MoeLayerParams& p, const RoutingScratch& s,
                                      const MoeTokenTile& tile, int lane) {
  const int slot = lane < tile.num_tokens ? s.slot_of_row[tile.first_row + lane] : kNoAdapter - 1;
  const int left = __shfl_up_sync(kAllLanes, slot, 1);
  const bool boundary = lane == 0 || slot != left;
  const unsigned boundaries = __ballot_sync(kAllLanes, boundary);
  const bool starts = boundary && slot >= 0;
  const unsigned runs = __ballot_sync(kAllLanes, starts);
  int first = 0;
  if (lane == 0 && runs != 0)
    first = atomicAdd(&p.workspace.counts->num_shrink_items, __popc(runs));
  first = __shfl_sync(kAllLanes, first, 0);
  if (!starts) return;
  const unsigned later = lane < 31 ? boundaries >> (lane + 1) : 0;
  const int end = later != 0 ? lane + __ffs(later) : tile.num_tokens;
  p.workspace.lora_runs[first + __popc(runs & ((1u << lane) - 1))] = {
      .slot = slot,
      .expert = tile.expert,
      .first_row = tile.first_row + lane,
      .num_tokens = end - lane};
}

// An A that experts share is multiplied once a token.
__device__ inline void list_shared_shrinks(const MoeLayerParams& p, const RoutingScratch& s,
                                           const MoeAdapterSlot& adapter, const RoutingPlan& plan,
                                           int slot) {
  const MoeWorkspace& w = p.workspace;
  const int begin = s.slot_begin[slot + 1], end = s.slot_begin[slot + 2];
  const int num_slabs = (shrink_rows(adapter) + 63) / 64;
#pragma unroll 1
  for (int t = begin; t < end; t += plan.tile_tokens) {
    const int num_tokens = min(plan.tile_tokens, end - t);
    int at =
        atomicAdd(&w.counts->num_shrink_items, plan.lists_lora_runs ? 1 : num_slabs * kShrinkParts);
    if (plan.lists_lora_runs) {
      w.lora_runs[at] = {
          .slot = slot, .expert = 0, .first_row = w.max_rows + t, .num_tokens = num_tokens};
      continue;
    }
    MoeShrinkItem item = {};
    item.factor = adapter.shrink_gate_up;
    item.first_row = w.max_rows + t, item.num_tokens = num_tokens;
    item.rank = adapter.rank_gate_up, item.one_a = adapter.one_a;
    item.ready_index = w.max_rows + slot;
    item.num_parts = 1;
    item.scaling_gate = adapter.scaling_gate, item.scaling_up = adapter.scaling_up;
    for (item.slab = 0; item.slab < num_slabs; ++item.slab) {
      for (item.first_part = 0; item.first_part < kShrinkParts; ++item.first_part)
        w.shrink_items[at++] = item;
      item.factor += int64_t{64} * 2 * p.sizes.hidden_size;
    }
  }
}

// Writes what the GEMM kernels read: tiles and their tokens. Every CTA knows the whole order and
// writes its share. By the first kThreads threads of a CTA.
template <int kThreads>
__device__ inline void write_lists(const MoeLayerParams& p, const RoutingScratch& s,
                                   const MoeAdapterSlot* slots, const RoutingPlan& plan,
                                   const SortedSizes& sizes) {
  const MoeWorkspace& w = p.workspace;
  const int thread = blockIdx.x * kThreads + threadIdx.x;
  const int num_threads = gridDim.x * kThreads;
  const int num_keys = p.sizes.all_experts(), per_token = p.sizes.pairs_per_token();
  const bool with_adapters = p.adapters != nullptr;
  const auto tile_at = [&](int i) -> MoeTokenTile {
    const int k = s.key_of_tile[i], begin = (i - s.first_tile[k]) * plan.tile_tokens;
    const int first_row = s.first_row[k] + begin;
    const int num_tokens = min(plan.tile_tokens, s.count[k] - begin);
    // Tokens without an adapter come first.
    return {.expert = expert_of_key(p, k),
            .first_row = first_row,
            .num_tokens = num_tokens,
            .num_runs = with_adapters && s.slot_of_row[first_row + num_tokens - 1] >= 0};
  };
  if (thread == 0) w.counts->num_tiles = sizes.tiles, w.counts->num_other_tiles = sizes.other_tiles;
#pragma unroll 1
  for (int i = thread; i < sizes.tiles; i += num_threads) {
    const MoeTokenTile tile = tile_at(i);
    const int k = s.key_of_tile[i], j = i - s.first_tile[k];
    const bool guessed = tile.expert < plan.num_guessed_experts;
    w.tiles[i] = tile;
    if (guessed && j == 0) {
      w.guessed_tiles[tile.expert] = tile;
    } else {
      w.other_tiles[s.first_other[k] + j - guessed] = tile;
    }
  }
  if (with_adapters) {
    // From the last CTA on, so that tiles and rows are written side by side.
#pragma unroll 1
    for (int r = num_threads - 1 - thread; r < sizes.rows; r += num_threads)
      list_row(p, s, slots, plan, r);
  }
#pragma unroll 1
  for (int i = thread; i < p.num_tokens * per_token; i += num_threads)
    w.row_of_pair[i] = s.expert_of_pair[i] >= 0 ? s.row_of_pair[i] : -1;
#pragma unroll 1
  for (int k = thread; k < num_keys; k += num_threads) {
    const int expert = expert_of_key(p, k);
    if (expert < plan.num_guessed_experts && s.count[k] == 0)
      w.guessed_tiles[expert].num_tokens = 0;
  }
  if (!with_adapters) return;
#pragma unroll 1
  for (int t = thread; t < p.num_tokens; t += num_threads)
    w.token_of_row[w.max_rows + t] = s.token_order[t];
#pragma unroll 1
  for (int slot = thread; slot < p.num_slots; slot += num_threads) {
    if (slots[slot].shrink_gate_up_stride == 0) list_shared_shrinks(p, s, slots[slot], plan, slot);
  }
  if (!plan.lists_lora_runs) return;
#pragma unroll 1
  for (int i = thread / 32; i < sizes.tiles; i += num_threads / 32) {
    const MoeTokenTile tile = tile_at(i);
    list_lora_runs(p, s, tile, threadIdx.x % 32);
  }
}

// --- one warp: 128 elements of a token, as their pairs' rows have them ---

// q(x) of four elements, as the lane stores them: FP8 codes and the scale of all 128, or two words
// of BF16.
struct XPiece {
  uint2 words;
  float scale;
};

__device__ inline XPiece round_x(WeightFormat format, uint2 four, int lane) {
  if (format == WeightFormat::kFp8Block128) {
    const Quantized128 q = quantize_128(four);
    return {.words = make_uint2(*reinterpret_cast<const uint32_t*>(&q.codes), 0), .scale = q.scale};
  }
  if (format == WeightFormat::kNvfp4) {
    // Elements 16 apart stand side by side (nvfp4_place): the lane takes two of its own, with their
    // neighbours of the lane that has them.
    const bool upper = lane & 4;
    const uint32_t own = upper ? four.y : four.x;
    const uint32_t other = __shfl_xor_sync(kAllLanes, upper ? four.x : four.y, 4);
    const uint32_t low = upper ? other : own, high = upper ? own : other;
    four = make_uint2(__byte_perm(low, high, 0x5410), __byte_perm(low, high, 0x7632));
  }
  return {.words = four, .scale = 0.0f};
}

__device__ inline void store_x(const MoeLayerParams& p, const RoutingScratch& s, int token,
                               int k128, const XPiece& x, int tile_tokens, int lane) {
  const int per_token = p.sizes.pairs_per_token();
  const WeightFormat format = p.sizes.weight_format;
  const bool is_fp8 = format == WeightFormat::kFp8Block128;
  // Lane k finds where pair k lies, and all lanes write there.
  int64_t my_at = -1;
  int my_row = 0, my_scale_bytes = 0, my_depth_bytes = 0;
  if (lane < per_token && s.expert_of_pair[token * per_token + lane] >= 0) {
    const int key = s.expert_of_pair[token * per_token + lane];
    const int row = s.row_of_pair[token * per_token + lane], begin = s.first_row[key];
    const int first = begin + ((row - begin) & -tile_tokens);
    const int tokens = min(tile_tokens, s.count[key] - (first - begin));
    const ActivationImage image =
        activation_image(format, first, tokens, p.sizes.hidden_size, /*scales_per_row=*/1);
    my_at = image.offset(is_fp8 ? k128 : 2 * k128);
    my_row = row - first;
    my_scale_bytes = image.scale_bytes, my_depth_bytes = image.depth_bytes;
  }
  // Of the 256 bytes that 128 elements of BF16 are, the lane's two words.
  const bool is_bf16 = format == WeightFormat::kBf16;
  const int first_byte = is_bf16 ? 8 * lane : (lane % 4 * 4 + lane / 4 % 2 * 2) * 16 + lane / 8 * 4;
  const int next_byte = first_byte + (is_bf16 ? 4 : 16);
#pragma unroll 1
  for (int k = 0; k < per_token; ++k) {
    const int64_t offset = __shfl_sync(kAllLanes, my_at, k);
    const int r = __shfl_sync(kAllLanes, my_row, k);
    const int scale_bytes = __shfl_sync(kAllLanes, my_scale_bytes, k);
    const int depth_bytes = __shfl_sync(kAllLanes, my_depth_bytes, k);
    if (offset < 0) continue;
    uint8_t* const at = p.workspace.x_image + offset;
    if (is_fp8) {
      *reinterpret_cast<uint32_t*>(at + scale_bytes + swizzled(r, 4 * lane)) = x.words.x;
      if (lane == 0) reinterpret_cast<float*>(at)[r] = x.scale;
      continue;
    }
    const auto store = [&](int byte, uint32_t word) {
      *reinterpret_cast<uint32_t*>(at + byte / 128 * depth_bytes + swizzled(r, byte % 128)) = word;
    };
    store(first_byte, x.words.x), store(next_byte, x.words.y);
  }
}

}  // namespace braid::kernels

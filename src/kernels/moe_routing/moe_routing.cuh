#pragma once

// Device code of the routing kernel: choose experts, sort pairs, list the work, quantise x.

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "base/ids.h"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "kernels/moe_routing/routing_scratch.h"

namespace braid::kernels {

inline constexpr int kRoutingThreads = 512;
inline constexpr int kRoutingWarps = kRoutingThreads / 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kMaxExperts = 512;
inline constexpr int kMaxTopK = 16;

// Where the sort keeps its arrays: shared memory for decode batches, global memory for larger ones.
struct RoutingScratch {
  int32_t* expert_of_pair;  // [T, K + shared], sort keys: 0 is the shared expert where there is one
  int32_t* row_of_pair;     // [T, K + shared]
  int32_t* token_order;     // [T], tokens sorted by adapter
  int32_t* order_of_token;  // [T], the inverse
  int32_t* token_of_row;    // [R], -1 where a tile's rows end
  int32_t* slot_of_row;     // [R], kNoAdapter there
  int32_t* count;           // [keys]
  int32_t* first_row;       // [keys]
  int32_t* first_tile;      // [keys]
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
  s.token_of_row = take(max_rows);
  s.slot_of_row = take(max_rows);
  s.count = take(num_keys);
  s.first_row = take(num_keys);
  s.first_tile = take(num_keys);
  s.slot_begin = take(num_slots + 2);
  s.members = reinterpret_cast<uint32_t*>(at);
  return s;
}

// Orders floats as unsigned integers; 0 comes before every number.
__device__ inline uint32_t sortable(float x) {
  const uint32_t bits = __float_as_uint(x);
  return (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
}

// --- one warp, one token: the choice of experts ---

// Keys of the experts lane + 32 i of a token; a key of 0 is out of the choice.
template <int kExpertsPerLane>
struct WarpKeys {
  uint32_t key[kExpertsPerLane];

  // Takes the largest key out and returns its expert, the lowest where several have it.
  __device__ int take_largest(int lane, uint32_t* value = nullptr) {
    // Four maxima side by side: one chain of them all would be most of the latency.
    uint32_t best[4] = {key[0], key[1], key[2], key[3]};
#pragma unroll
    for (int i = 4; i < kExpertsPerLane; ++i) best[i % 4] = max(best[i % 4], key[i]);
    const uint32_t largest =
        __reduce_max_sync(kAllLanes, max(max(best[0], best[1]), max(best[2], best[3])));
    unsigned mine = 0x7fffffffu;
#pragma unroll
    for (int i = kExpertsPerLane - 1; i >= 0; --i)
      if (key[i] == largest && largest != 0) mine = lane + 32 * i;
    const int expert = static_cast<int>(__reduce_min_sync(kAllLanes, mine));
#pragma unroll
    for (int i = 0; i < kExpertsPerLane; ++i) {
      if (lane + 32 * i == expert) key[i] = 0;
    }
    if (value != nullptr) *value = largest;
    return expert;
  }
};

__device__ inline float unsortable(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) ? key & 0x7fffffffu : ~key);
}

// Leaves only the experts of the best groups in the choice.
template <int kExpertsPerLane>
__device__ void keep_best_groups(const MoeLayerParams& p, WarpKeys<kExpertsPerLane>& keys,
                                 int lane) {
  const int group_size = p.sizes.num_experts / p.num_expert_groups;
  uint32_t score = 0;  // lane g: of group g
  for (int g = 0; g < p.num_expert_groups; ++g) {
    WarpKeys<kExpertsPerLane> of_group;
#pragma unroll
    for (int i = 0; i < kExpertsPerLane; ++i) {
      of_group.key[i] = (lane + 32 * i) / group_size == g ? keys.key[i] : 0;
    }
    uint32_t first, second;
    of_group.take_largest(lane, &first);
    of_group.take_largest(lane, &second);
    const float sum = unsortable(first) + (group_size > 1 ? unsortable(second) : 0.0f);
    if (lane == g) score = sortable(sum);
  }
  unsigned kept = 0;
  for (int n = 0; n < p.topk_groups; ++n) {
    const uint32_t largest = __reduce_max_sync(kAllLanes, score);
    const unsigned best = __reduce_min_sync(
        kAllLanes, score == largest && score != 0 ? static_cast<unsigned>(lane) : 31u);
    if (lane == static_cast<int>(best)) score = 0;
    kept |= 1u << best;
  }
#pragma unroll
  for (int i = 0; i < kExpertsPerLane; ++i) {
    const int g = (lane + 32 * i) / group_size;
    if (g >= 32 || !(kept >> g & 1)) keys.key[i] = 0;
  }
}

// Lane k < K gets the k-th expert of the token and its weight.
template <int kExpertsPerLane>
__device__ void route_token(const MoeLayerParams& p, int token, int lane, int* expert,
                            float* weight) {
  const int num_experts = p.sizes.num_experts, top_k = p.sizes.top_k;
  const float* logits = p.logits + int64_t{token} * num_experts;
  float logit[kExpertsPerLane];
#pragma unroll
  for (int i = 0; i < kExpertsPerLane; ++i) {
    const int e = lane + 32 * i;
    logit[i] = e < num_experts ? logits[e] : -INFINITY;
  }
  const auto sigmoid = [](float x) { return 1.0f / (1.0f + __expf(-x)); };
  int mine = kNoExpert;
  if (p.replay_ids != nullptr) {
    if (lane < top_k) mine = p.replay_ids[token * top_k + lane];
  } else {
    WarpKeys<kExpertsPerLane> keys;
#pragma unroll
    for (int i = 0; i < kExpertsPerLane; ++i) {
      const int e = lane + 32 * i;
      float choice = logit[i];
      if (p.scoring == RouterScoring::kSigmoid && e < num_experts) {
        choice = sigmoid(choice) + (p.bias != nullptr ? p.bias[e] : 0.0f);
      }
      keys.key[i] = e < num_experts ? sortable(choice) : 0;
    }
    if (p.num_expert_groups > 1) keep_best_groups(p, keys, lane);
    for (int k = 0; k < top_k; ++k) {
      const int e = keys.take_largest(lane);
      if (lane == k) mine = e;
    }
  }
  const bool chosen = lane < top_k && mine != kNoExpert;
  float score = 0.0f, sum = 0.0f;
  if (p.scoring == RouterScoring::kSoftmax) {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kExpertsPerLane; ++i) largest = fmaxf(largest, logit[i]);
    for (int step = 16; step > 0; step /= 2)
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
    score = chosen ? __expf(logits[mine] - largest) : 0.0f;
    sum = score;
    if (!p.norm_topk_prob) {
      sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kExpertsPerLane; ++i) sum += __expf(logit[i] - largest);
    }
  } else {
    score = chosen ? sigmoid(logits[mine]) : 0.0f;
    sum = score;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  const bool divide = p.scoring == RouterScoring::kSoftmax || p.norm_topk_prob;
  *expert = mine;
  *weight = chosen ? score * p.routed_scaling / (divide ? fmaxf(sum, 1e-20f) : 1.0f) : 0.0f;
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

// Exclusive scan over the CTA of one value a thread; *total is the sum of all.
__device__ inline unsigned long long scan_exclusive(unsigned long long value,
                                                    unsigned long long* total) {
  __shared__ unsigned long long of_warp[kRoutingWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned long long inclusive = value;
  for (int step = 1; step < 32; step *= 2) {
    const unsigned long long left = __shfl_up_sync(kAllLanes, inclusive, step);
    if (lane >= step) inclusive += left;
  }
  if (lane == 31) of_warp[warp] = inclusive;
  __syncthreads();
  unsigned long long before = 0, sum = 0;
  for (int w = 0; w < kRoutingWarps; ++w) {
    if (w < warp) before += of_warp[w];
    sum += of_warp[w];
  }
  __syncthreads();
  *total = sum;
  return before + inclusive - value;
}

__device__ inline int shrink_rows(const MoeAdapterSlot& slot) {
  return slot.one_a ? slot.rank_gate_up : 2 * slot.rank_gate_up;
}

// From the counts of the keys: where their rows and tiles begin.
__device__ inline void place_keys(const RoutingScratch& s, int num_keys, int tile_tokens,
                                  int* num_rows, int* num_tiles) {
  unsigned long long before = 0, total;  // low half: rows, high half: tiles
  for (int begin = 0; begin < num_keys; begin += kRoutingThreads) {
    const int k = begin + threadIdx.x;
    const int count = k < num_keys ? s.count[k] : 0;
    const unsigned long long mine =
        static_cast<unsigned long long>((count + tile_tokens - 1) / tile_tokens) << 32 |
        static_cast<unsigned>((count + 7) / 8 * 8);
    const unsigned long long at = before + scan_exclusive(mine, &total);
    if (k < num_keys) {
      s.first_row[k] = static_cast<int>(at & 0xffffffffu);
      s.first_tile[k] = static_cast<int>(at >> 32);
    }
    before += total;
  }
  *num_rows = static_cast<int>(before & 0xffffffffu);
  *num_tiles = static_cast<int>(before >> 32);
  __syncthreads();
}

// What the lists need of a slot; read from global memory once.
struct SlotFacts {
  int32_t rank_gate_up;
  int32_t rank_down;
  int32_t shrink_rows;
  int32_t shared_a;  // experts share A of gate and up
};
inline constexpr int kSlotFactsInts = sizeof(SlotFacts) / sizeof(int32_t);

__device__ inline void load_slot_facts(const MoeLayerParams& p, SlotFacts* facts) {
  for (int slot = threadIdx.x; slot < p.num_slots; slot += kRoutingThreads) {
    const MoeAdapterSlot& adapter = p.adapters[slot];
    facts[slot] = {adapter.rank_gate_up, adapter.rank_down, shrink_rows(adapter),
                   adapter.shrink_gate_up_stride == 0};
  }
}

// Row `row` goes to pair `pair` of the token that is `order`-th by adapter.
__device__ inline void place_pair(const MoeLayerParams& p, const RoutingScratch& s,
                                  const SlotFacts* facts, int pair, int order, int row) {
  s.row_of_pair[pair] = row;
  const int token = pair / p.sizes.pairs_per_token();
  s.token_of_row[row] = token;
  if (p.adapters == nullptr) return;
  const int slot = p.adapter_slot_of_token[token];
  s.slot_of_row[row] = slot;
  const bool shared = slot >= 0 && facts[slot].shared_a != 0;
  if (pair % gridDim.x == blockIdx.x)
    p.workspace.u_row_of_row[row] = shared ? p.workspace.max_rows + order : row;
}

// Sorts the pairs by (expert, adapter). Leaves everything of `s`.
__device__ inline void sort_pairs(const MoeLayerParams& p, const RoutingScratch& s,
                                  const SlotFacts* facts, int32_t* warp_count, int32_t* next,
                                  int tile_tokens, int* num_rows, int* num_tiles) {
  const int num_keys = p.sizes.all_experts(), per_token = p.sizes.pairs_per_token();
  const int num_pairs = p.num_tokens * per_token;
  for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) s.count[k] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < num_pairs; i += kRoutingThreads) {
    if (s.expert_of_pair[i] >= 0) atomicAdd(&s.count[s.expert_of_pair[i]], 1);
  }
  __syncthreads();
  place_keys(s, num_keys, tile_tokens, num_rows, num_tiles);
  for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) next[k] = s.first_row[k];
  for (int r = threadIdx.x; r < *num_rows; r += kRoutingThreads)
    s.token_of_row[r] = s.slot_of_row[r] = -1;
  // Tokens by adapter first; the stable sort by expert then leaves each expert's pairs in runs.
  if (p.adapters != nullptr) {
    for (int k = threadIdx.x; k < p.num_slots + 2; k += kRoutingThreads) s.slot_begin[k] = 0;
    __syncthreads();
    for (int t = threadIdx.x; t < p.num_tokens; t += kRoutingThreads)
      atomicAdd(&s.slot_begin[p.adapter_slot_of_token[t] + 1], 1);
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
        [&](int t) { return p.adapter_slot_of_token[t] + 1; },
        [&](int t, int at) { s.token_order[at] = t; });
  } else {
    for (int t = threadIdx.x; t < p.num_tokens; t += kRoutingThreads) s.token_order[t] = t;
    __syncthreads();
  }
  const auto pair_at = [&](int i) {
    return s.token_order[i / per_token] * per_token + i % per_token;
  };
  stable_positions(
      num_pairs, num_keys, next, warp_count, [&](int i) { return s.expert_of_pair[pair_at(i)]; },
      [&](int i, int row) { place_pair(p, s, facts, pair_at(i), i / per_token, row); });
}

// Up to 256 tokens by adapter: token_order, order_of_token, slot_begin. Ends with a barrier.
__device__ inline void order_tokens(const MoeLayerParams& p, const RoutingScratch& s) {
  if (p.adapters != nullptr) {
    for (int t = threadIdx.x; t < p.num_tokens; t += kRoutingThreads)
      s.token_order[t] = p.adapter_slot_of_token[t];
    __syncthreads();
    int order = 0;
    const int t = threadIdx.x;
    if (t < p.num_tokens) {
      const int slot = s.token_order[t];
#pragma unroll 8
      for (int i = 0; i < p.num_tokens; ++i) {
        const int other = s.token_order[i];
        order += other < slot || (other == slot && i < t);
      }
    }
    for (int k = kRoutingThreads - 1 - threadIdx.x; k < p.num_slots + 2; k += kRoutingThreads) {
      int before = 0;
#pragma unroll 8
      for (int i = 0; i < p.num_tokens; ++i) before += s.token_order[i] + 1 < k;
      s.slot_begin[k] = before;
    }
    __syncthreads();
    if (t < p.num_tokens) s.order_of_token[t] = order, s.token_order[order] = t;
  } else {
    for (int t = threadIdx.x; t < p.num_tokens; t += kRoutingThreads)
      s.order_of_token[t] = s.token_order[t] = t;
  }
  __syncthreads();
}

// The same for up to 256 tokens, faster: for each expert a row of bits says which tokens it has, in
// the order of their adapters; a pair's place among its expert's is a count of bits. After
// order_tokens(); s.members is zero, token_of_row and slot_of_row are -1.
__device__ inline void sort_pairs_by_bits(const MoeLayerParams& p, const RoutingScratch& s,
                                          const SlotFacts* facts, int tile_tokens, int* num_rows,
                                          int* num_tiles) {
  const int num_keys = p.sizes.all_experts(), per_token = p.sizes.pairs_per_token();
  const int num_pairs = p.num_tokens * per_token, words = (p.num_tokens + 31) / 32;
  // --- who is whose ---
  for (int i = threadIdx.x; i < num_pairs; i += kRoutingThreads) {
    const int key = s.expert_of_pair[i], at = s.order_of_token[i / per_token];
    if (key >= 0) atomicOr(&s.members[key * words + at / 32], 1u << at % 32);
  }
  __syncthreads();
  for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) {
    int count = 0;
    for (int i = 0; i < words; ++i) count += __popc(s.members[k * words + i]);
    s.count[k] = count;
  }
  __syncthreads();
  place_keys(s, num_keys, tile_tokens, num_rows, num_tiles);
  for (int i = threadIdx.x; i < num_pairs; i += kRoutingThreads) {
    const int key = s.expert_of_pair[i], at = s.order_of_token[i / per_token];
    if (key < 0) continue;
    int row = s.first_row[key];
    for (int word = 0; word < at / 32; ++word) row += __popc(s.members[key * words + word]);
    row += __popc(s.members[key * words + at / 32] & ((1u << at % 32) - 1));
    place_pair(p, s, facts, i, at, row);
  }
  __syncthreads();
}

// Writes what the GEMM kernels read: tiles, runs, shrink items. Every CTA knows the whole order and
// writes its share: a warp takes an expert, a lane a row.
__device__ inline void write_lists(const MoeLayerParams& p, const RoutingScratch& s,
                                   const SlotFacts* facts, int tile_tokens, int num_rows,
                                   int num_tiles) {
  const MoeWorkspace& w = p.workspace;
  const int lane = threadIdx.x % 32;
  const int thread = blockIdx.x * kRoutingThreads + threadIdx.x;
  const int num_threads = gridDim.x * kRoutingThreads;
  // Neighbouring experts go to different CTAs.
  const int warp = threadIdx.x / 32 * gridDim.x + blockIdx.x, num_warps = num_threads / 32;
  const int num_keys = p.sizes.all_experts(), per_token = p.sizes.pairs_per_token();
  const int shared = p.sizes.num_shared_experts;
  for (int r = thread; r < num_rows; r += num_threads) w.token_of_row[r] = s.token_of_row[r];
  for (int i = thread; i < p.num_tokens * per_token; i += num_threads)
    w.row_of_pair[i] = s.expert_of_pair[i] >= 0 ? s.row_of_pair[i] : -1;
  if (p.adapters == nullptr) {
    for (int k = thread; k < num_keys; k += num_threads) {
      for (int j = 0; j * tile_tokens < s.count[k]; ++j) {
        w.tiles[s.first_tile[k] + j] = {
            .expert = k < shared ? p.sizes.num_experts : k - shared,
            .first_row = s.first_row[k] + j * tile_tokens,
            .num_tokens = min(tile_tokens, s.count[k] - j * tile_tokens),
            .num_runs = 0};
      }
    }
  } else {
    for (int t = thread; t < p.num_tokens; t += num_threads)
      w.token_of_row[w.max_rows + t] = s.token_order[t];
    for (int k = warp; k < num_keys; k += num_warps) {
      const int expert = k < shared ? p.sizes.num_experts : k - shared;
      for (int j = 0; j * tile_tokens < s.count[k]; ++j) {
        const int first = s.first_row[k] + j * tile_tokens;
        const int tokens = min(tile_tokens, s.count[k] - j * tile_tokens);
        // Runs: neighbours of one adapter. Tiles with adapters have at most 32 tokens.
        const int slot = lane < tokens ? s.slot_of_row[first + lane] : kNoAdapter - 1;
        const int left = __shfl_up_sync(kAllLanes, slot, 1);
        const bool boundary = lane == 0 || slot != left;
        const unsigned boundaries = __ballot_sync(kAllLanes, boundary);
        const bool starts = boundary && slot >= 0;
        const unsigned runs = __ballot_sync(kAllLanes, starts);
        const int run = first + __popc(runs & ((1u << lane) - 1));
        const unsigned later = lane < 31 ? boundaries >> (lane + 1) : 0;
        const int end = later != 0 ? lane + __ffs(later) : tokens;
        SlotFacts of_slot = {};
        int slabs = 0;
        if (starts) {
          of_slot = facts[slot];
          if (!of_slot.shared_a) slabs = (of_slot.shrink_rows + 63) / 64;
        }
        int item = slabs;  // inclusive, then exclusive sum over the lanes
        for (int step = 1; step < 32; step *= 2) {
          const int before = __shfl_up_sync(kAllLanes, item, step);
          if (lane >= step) item += before;
        }
        int base = 0;
        if (lane == 31 && item > 0) base = atomicAdd(&w.counts->num_shrink_items, item);
        item += __shfl_sync(kAllLanes, base, 31) - slabs;
        if (starts) {
          MoeRun out = {.slot = slot,
                        .begin = lane,
                        .end = end,
                        .ready_index = run,
                        .ready_count = (of_slot.shrink_rows + 15) / 16,
                        .rank_gate_up = of_slot.rank_gate_up,
                        .rank_down = of_slot.rank_down,
                        .expert = expert};
          if (of_slot.shared_a) {
            const int of_adapter = s.slot_begin[slot + 2] - s.slot_begin[slot + 1];
            out.ready_index = w.max_rows + slot;
            out.ready_count *= (of_adapter + tile_tokens - 1) / tile_tokens;
          }
          w.runs[run] = out;
          for (int slab = 0; slab < slabs; ++slab) {
            w.shrink_items[item + slab] = {.slot = slot,
                                           .expert = expert,
                                           .slab = slab,
                                           .first_row = first + lane,
                                           .num_tokens = end - lane,
                                           .ready_index = run};
          }
        }
        if (lane == 0) {
          w.tiles[s.first_tile[k] + j] = {
              .expert = expert, .first_row = first, .num_tokens = tokens, .num_runs = __popc(runs)};
        }
      }
    }
    // An A that experts share is multiplied once a token.
    for (int slot = thread; slot < p.num_slots; slot += num_threads) {
      const int begin = s.slot_begin[slot + 1], end = s.slot_begin[slot + 2];
      if (begin == end || !facts[slot].shared_a) continue;
      const int slabs = (facts[slot].shrink_rows + 63) / 64;
      for (int t = begin; t < end; t += tile_tokens) {
        const int item = atomicAdd(&w.counts->num_shrink_items, slabs);
        for (int slab = 0; slab < slabs; ++slab) {
          w.shrink_items[item + slab] = {.slot = slot,
                                         .expert = 0,
                                         .slab = slab,
                                         .first_row = w.max_rows + t,
                                         .num_tokens = min(tile_tokens, end - t),
                                         .ready_index = w.max_rows + slot};
        }
      }
    }
  }
  if (thread == 0) w.counts->num_tiles = num_tiles;
}

// --- one warp: 128 elements of a token, quantised into the rows of its pairs ---

__device__ inline void quantize_x(const MoeLayerParams& p, const RoutingScratch& s, int token,
                                  int k128, uint2 four, int tile_tokens, int lane) {
  const int per_token = p.sizes.pairs_per_token(), depth = p.sizes.hidden_size / 128;
  const float2 low = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.x));
  const float2 high = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.y));
  const float my_amax =
      fmaxf(fmaxf(fabsf(low.x), fabsf(low.y)), fmaxf(fabsf(high.x), fabsf(high.y)));
  const float amax = __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(my_amax)));
  const float x_scale = e4m3_scale(amax), inverse = 1.0f / x_scale;
  const __nv_fp8x4_e4m3 codes(
      make_float4(low.x * inverse, low.y * inverse, high.x * inverse, high.y * inverse));
  // Lane k finds where pair k lies, and all lanes write there.
  int64_t my_at = -1;
  int my_row = 0, my_scale_bytes = 0;
  if (lane < per_token && s.expert_of_pair[token * per_token + lane] >= 0) {
    const int key = s.expert_of_pair[token * per_token + lane];
    const int row = s.row_of_pair[token * per_token + lane], begin = s.first_row[key];
    const int first = begin + ((row - begin) & -tile_tokens);
    const int tokens = min(tile_tokens, s.count[key] - (first - begin));
    const ActivationImage image = activation_image(first, tokens, depth, /*scales_per_row=*/1);
    my_at = image.offset(k128);
    my_row = row - first;
    my_scale_bytes = image.scale_bytes;
  }
  const bool any = __any_sync(kAllLanes, my_at >= 0);
  for (int k = 0; k < per_token; ++k) {
    const int64_t offset = __shfl_sync(kAllLanes, my_at, k);
    const int r = __shfl_sync(kAllLanes, my_row, k);
    const int scale_bytes = __shfl_sync(kAllLanes, my_scale_bytes, k);
    if (offset < 0) continue;
    uint8_t* const at = p.workspace.x_image + offset;
    *reinterpret_cast<__nv_fp8x4_e4m3*>(at + scale_bytes + swizzled(r, 4 * lane)) = codes;
    if (lane == 0) reinterpret_cast<float*>(at)[r] = x_scale;
  }
  // A token without experts is nobody else's to write.
  if (!any) {
    *reinterpret_cast<uint2*>(p.y + int64_t{token} * p.sizes.hidden_size + 128 * k128 + 4 * lane) =
        make_uint2(0, 0);
  }
}

}  // namespace braid::kernels

// Routing of large batches: choose experts and order tokens by adapter; count each expert's tokens
// by chunks of that order; give every pair a row and quantise x; list the work.

#include <algorithm>

#include "kernels/common/launch.h"
#include "kernels/common/quantize_128.cuh"
#include "kernels/moe_gemm/large_batch.h"
#include "kernels/moe_gemm/large_lora.cuh"
#include "kernels/moe_routing/moe_routing.cuh"

namespace braid::kernels {
namespace {

// --- choose experts; order tokens by adapter ---

// One CTA: token_order and slot_begin, tokens of no adapter first. A warp has neighbouring tokens,
// so that only its counts have to be added up. `count` is [warps, S + 1].
__device__ void order_by_adapter(const MoeLayerParams& p, const RoutingScratch& s, int32_t* count) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, num_keys = p.num_slots + 1;
  const int per_warp = (p.num_tokens + 32 * kRoutingWarps - 1) / (32 * kRoutingWarps) * 32;
  const int begin = warp * per_warp, end = min(p.num_tokens, begin + per_warp);
  int32_t* const mine = count + warp * num_keys;
  // Calls body(token, key, lanes with the same key) for 32 tokens after the other; a key below 0 is
  // no token. The keys of several come at a time.
  const auto for_tokens = [&](auto body) {
    constexpr int kBatch = 4;
    for (int first = begin + lane; first < begin + per_warp; first += 32 * kBatch) {
      int key[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int t = first + 32 * i;
        key[i] = t < end ? p.adapter_slot_of_token[t] + 1 : -1;
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        body(first + 32 * i, key[i], __match_any_sync(kAllLanes, key[i]));
        __syncwarp();
      }
    }
  };
  for (int i = threadIdx.x; i < kRoutingWarps * num_keys; i += kRoutingThreads) count[i] = 0;
  __syncthreads();
  for_tokens([&](int, int key, unsigned peers) {
    if (key >= 0 && lane == __ffs(peers) - 1) mine[key] += __popc(peers);
  });
  __syncthreads();
  __shared__ int32_t of_warp[kRoutingWarps];
  int32_t before = 0, total;
  for (int first = 0; first < num_keys; first += kRoutingThreads) {
    __syncthreads();  // of_warp has been read
    const int k = first + threadIdx.x;
    int sum = 0;
    for (int w = 0; k < num_keys && w < kRoutingWarps; ++w) sum += count[w * num_keys + k];
    int at = before + scan_exclusive(sum, &total, of_warp);
    before += total;
    if (k >= num_keys) continue;
    for (int w = 0; w < kRoutingWarps; ++w) {
      const int of_warp = count[w * num_keys + k];
      count[w * num_keys + k] = at;
      at += of_warp;
    }
  }
  __syncthreads();
  // Which tokens have which adapter does not come from the previous kernel, but their order may
  // still be read.
  wait_for_previous_kernel();
  for (int k = threadIdx.x; k <= num_keys; k += kRoutingThreads)
    s.slot_begin[k] = k < num_keys ? count[k] : p.num_tokens;
  __syncthreads();
  for_tokens([&](int t, int key, unsigned peers) {
    const int at = key >= 0 ? mine[key] : 0;
    __syncwarp();
    if (key < 0) return;
    const int order = at + __popc(peers & ((1u << lane) - 1));
    s.token_order[order] = t;
    p.workspace.token_of_row[p.workspace.max_rows + order] = t;
    if (lane == __ffs(peers) - 1) mine[key] = at + __popc(peers);
  });
}

__device__ RoutingScratch scratch_of(const MoeLayerParams& p) {
  return routing_scratch(p.workspace.sort_scratch, p.num_tokens * p.sizes.pairs_per_token(),
                         p.num_tokens, p.workspace.max_rows, p.sizes.all_experts(), p.num_slots);
}

// The last CTA orders tokens where there are adapters, the others route: a warp takes a token.
template <int kExpertsPerLane>
__global__ __launch_bounds__(kRoutingThreads) void moe_large_route_kernel(
    const __grid_constant__ MoeLayerParams p) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int per_token = p.sizes.pairs_per_token(), shared = p.sizes.num_shared_experts;
  const RoutingScratch s = scratch_of(p);
  extern __shared__ __align__(16) int32_t count[];
  let_next_kernel_start();
  const int num_routers = gridDim.x - (p.adapters != nullptr);
  if (blockIdx.x == num_routers) return order_by_adapter(p, s, count);
  wait_for_previous_kernel();
  for (int t = warp * num_routers + blockIdx.x; t < p.num_tokens;
       t += num_routers * kRoutingWarps) {
    int expert;
    float weight;
    route_token<kExpertsPerLane>(p, t, lane, &expert, &weight);
    const int pair = t * per_token + lane;
    if (lane < p.sizes.top_k) {
      s.expert_of_pair[pair] = expert == kNoExpert ? -1 : expert + shared;
      p.topk_ids[t * p.sizes.top_k + lane] = expert;
      p.workspace.weight_of_pair[pair] = weight;
    } else if (lane < per_token) {
      s.expert_of_pair[pair] = 0;
      p.workspace.weight_of_pair[pair] = p.shared_weight != nullptr ? p.shared_weight[t] : 1.0f;
    }
  }
}

// --- count and place: a CTA has a chunk of the order ---

// Tokens of a chunk: a multiple of 16, and no more than kLargeChunks of them.
__host__ __device__ constexpr int chunk_tokens(int num_tokens) {
  return ((num_tokens + kLargeChunks - 1) / kLargeChunks + 15) / 16 * 16;
}
__host__ __device__ constexpr int num_chunks(int num_tokens) {
  return (num_tokens + chunk_tokens(num_tokens) - 1) / chunk_tokens(num_tokens);
}

// Of each key a row of bits: which tokens of the chunk it has.
struct Chunk {
  int first, num_tokens, words;
  uint32_t* members;  // [keys, words]
};

__device__ int token_at(const MoeLayerParams& p, const RoutingScratch& s, int order) {
  return p.adapters != nullptr ? __ldcg(s.token_order + order) : order;
}

__device__ Chunk load_chunk(const MoeLayerParams& p, const RoutingScratch& s, uint32_t* members) {
  const int per_token = p.sizes.pairs_per_token(), num_keys = p.sizes.all_experts();
  const int tokens = chunk_tokens(p.num_tokens);
  Chunk chunk = {.first = static_cast<int>(blockIdx.x) * tokens,
                 .words = (tokens + 31) / 32,
                 .members = members};
  chunk.num_tokens = min(tokens, p.num_tokens - chunk.first);
  for (int i = threadIdx.x; i < num_keys * chunk.words; i += kRoutingThreads) members[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < chunk.num_tokens * per_token; i += kRoutingThreads) {
    const int at = i / per_token;
    const int token = token_at(p, s, chunk.first + at);
    const int key = __ldcg(s.expert_of_pair + token * per_token + i % per_token);
    if (key >= 0) atomicOr(&members[key * chunk.words + at / 32], 1u << at % 32);
  }
  __syncthreads();
  return chunk;
}

__global__ __launch_bounds__(kRoutingThreads) void moe_large_count_kernel(
    const __grid_constant__ MoeLayerParams p) {
  extern __shared__ uint32_t members[];
  const RoutingScratch s = scratch_of(p);
  const int num_keys = p.sizes.all_experts();
  let_next_kernel_start();
  wait_for_previous_kernel();
  const Chunk chunk = load_chunk(p, s, members);
  for (int k = threadIdx.x; k < num_keys; k += kRoutingThreads) {
    int count = 0;
    for (int i = 0; i < chunk.words; ++i) count += __popc(members[k * chunk.words + i]);
    p.workspace.key_counts[blockIdx.x * num_keys + k] = count;
  }
}

__device__ MoeTokenTile tile_of(const MoeLayerParams& p, int key, int count, int first_row, int j) {
  const int size = large_tile_tokens(count);
  return {.expert = expert_of_key(p, key),
          .first_row = first_row + j * size,
          .num_tokens = min(size, count - j * size),
          .num_runs = 0};
}

// Tile j of an expert with `count` tokens, of all tiles the `at`-th. The expert's entries in the
// GEMMs' list begin with `entry`.
__device__ void list_tile(const MoeLayerParams& p, MoeTokenTile tile, int count, int j, int at,
                          int entry) {
  p.workspace.tiles[at] = tile;
  // Tiles before the last have as many entries as the first.
  entry += j * large_num_entries(large_tile_tokens(count));
  for (int half = 0; half < large_num_entries(tile.num_tokens); ++half) {
    p.workspace.other_tiles[entry + half] = tile;
    tile.num_runs += kSecondHalf;
  }
}

// Where the rows, tiles and entries of the GEMMs' list begin for each key. The first CTA tells, and
// without adapters, when there are no runs to be found, lists them.
__device__ void place_large_keys(const MoeLayerParams& p, const RoutingScratch& s,
                                 int32_t* row_of_key) {
  const int num_keys = p.sizes.all_experts(), chunks = num_chunks(p.num_tokens);
  // Rows, tiles and entries, scanned as one number.
  constexpr int kTilesBit = 24, kEntriesBit = 44;
  constexpr unsigned long long kRowsMask = (1ull << kTilesBit) - 1, kTilesMask = (1ull << 20) - 1;
  __shared__ unsigned long long of_warp[kRoutingWarps];
  unsigned long long before = 0, total;
  for (int begin = 0; begin < num_keys; begin += kRoutingThreads) {
    __syncthreads();  // of_warp has been read
    const int k = begin + threadIdx.x;
    int count = 0, of_earlier = 0;
    if (k < num_keys) {
#pragma unroll 16
      for (int c = 0; c < chunks; ++c) {
        const int here = __ldcg(p.workspace.key_counts + c * num_keys + k);
        count += here;
        of_earlier += c < static_cast<int>(blockIdx.x) ? here : 0;
      }
    }
    const int tiles = large_num_tiles(count), size = large_tile_tokens(count);
    const int last = count - (tiles - 1) * size;
    const int entries =
        tiles == 0 ? 0 : (tiles - 1) * large_num_entries(size) + large_num_entries(last);
    const unsigned long long mine = static_cast<unsigned long long>(entries) << kEntriesBit |
                                    static_cast<unsigned long long>(tiles) << kTilesBit |
                                    static_cast<unsigned>((count + 7) / 8 * 8);
    const unsigned long long at = before + scan_exclusive(mine, &total, of_warp);
    before += total;
    if (k >= num_keys) continue;
    const int first_row = static_cast<int>(at & kRowsMask);
    row_of_key[k] = first_row + of_earlier;
    if (blockIdx.x > 0) continue;
    const int first_tile = static_cast<int>(at >> kTilesBit & kTilesMask);
    const int first_entry = static_cast<int>(at >> kEntriesBit);
    if (p.adapters == nullptr) {
      for (int j = 0; j < tiles; ++j) {
        list_tile(p, tile_of(p, k, count, first_row, j), count, j, first_tile + j, first_entry);
      }
      continue;
    }
    s.count[k] = count, s.first_row[k] = first_row;
    s.first_tile[k] = first_tile, s.first_other[k] = first_entry;
    for (int j = 0; j < tiles; ++j) s.key_of_tile[first_tile + j] = k;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    p.workspace.counts->num_tiles = static_cast<int>(before >> kTilesBit & kTilesMask);
    p.workspace.counts->num_other_tiles = static_cast<int>(before >> kEntriesBit);
  }
  __syncthreads();
}

// --- quantise x: a warp takes a token, or some of its columns ---

// Times 512 columns that a warp takes at a time: eight lanes have 128 of them, 16 a lane, so that
// what they store is a line.
constexpr int kQuantizeGroups = 2;
constexpr int kQuantizeDepth = 4 * kQuantizeGroups;  // in 128 columns
__host__ __device__ constexpr int quantize_tasks(const MoeLayerParams& p) {
  return p.num_tokens * ((p.sizes.hidden_size / 128 + kQuantizeDepth - 1) / kQuantizeDepth);
}

__device__ void quantize(const MoeLayerParams& p, int task, int lane) {
  const int depth = p.sizes.hidden_size / 128,
            parts = (depth + kQuantizeDepth - 1) / kQuantizeDepth;
  const int token = task / parts, chunk = lane % 8;
  const int my_k = task % parts * kQuantizeDepth + lane / 8;
  uint4 x[kQuantizeGroups][2] = {};
#pragma unroll
  for (int g = 0; g < kQuantizeGroups; ++g) {
    const int k = my_k + 4 * g;
    if (k >= depth) continue;
    const auto* const from = reinterpret_cast<const uint4*>(
        p.x + int64_t{token} * p.sizes.hidden_size + 128 * k + 16 * chunk);
    x[g][0] = from[0], x[g][1] = from[1];
  }
#pragma unroll
  for (int g = 0; g < kQuantizeGroups; ++g) {
    const int k = my_k + 4 * g;
    const Quantized16 q = quantize_128(x[g]);
    if (k >= depth) continue;
    *reinterpret_cast<uint4*>(large_x_codes(p) + int64_t{token} * p.sizes.hidden_size + 128 * k +
                              16 * chunk) = q.codes;
    if (chunk == 0) large_x_scales(p)[token * depth + k] = q.scale;
  }
}

// CTAs behind those that have a chunk quantise.
__global__ __launch_bounds__(kRoutingThreads, 2) void moe_large_place_kernel(
    const __grid_constant__ MoeLayerParams p) {
  extern __shared__ uint32_t members[];
  const RoutingScratch s = scratch_of(p);
  const MoeWorkspace& w = p.workspace;
  const int num_keys = p.sizes.all_experts(), per_token = p.sizes.pairs_per_token();
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int quantizer = static_cast<int>(blockIdx.x) - num_chunks(p.num_tokens);
  if (quantizer >= 0) {
    const int task = quantizer * kRoutingWarps + threadIdx.x / 32;
    if (task < quantize_tasks(p)) quantize(p, task, threadIdx.x % 32);
    return;
  }
  const Chunk chunk = load_chunk(p, s, members);
  int32_t* const row_of_key = reinterpret_cast<int32_t*>(members + num_keys * chunk.words);
  place_large_keys(p, s, row_of_key);
  for (int i = threadIdx.x; i < chunk.num_tokens * per_token; i += kRoutingThreads) {
    const int at = i / per_token, order = chunk.first + at;
    const int token = token_at(p, s, order), pair = token * per_token + i % per_token;
    const int key = __ldcg(s.expert_of_pair + pair);
    if (key < 0) {
      w.row_of_pair[pair] = -1;
      continue;
    }
    int row = row_of_key[key];
    const uint32_t* const bits = members + key * chunk.words;
    for (int j = 0; j < at / 32; ++j) row += __popc(bits[j]);
    row += __popc(bits[at / 32] & ((1u << at % 32) - 1));
    w.row_of_pair[pair] = row;
    w.token_of_row[row] = token;
    if (p.adapters == nullptr) continue;
    s.slot_of_row[row] = p.adapter_slot_of_token[token];
  }
}

// --- with adapters list the work: a warp takes a tile ---

__device__ MoeShrinkItem shrink_item(const MoeAdapterSlot& adapter, int expert) {
  return {.factor = adapter.shrink_gate_up + expert * adapter.shrink_gate_up_stride,
          .rank = adapter.rank_gate_up,
          .one_a = adapter.one_a,
          .scaling_gate = adapter.scaling_gate,
          .scaling_up = adapter.scaling_up};
}

// Items for the tokens in rows [first, first + num_tokens), by one lane.
__device__ void list_shrink(const MoeLayerParams& p, MoeShrinkItem item, int first,
                            int num_tokens) {
  const int rows = item.one_a ? item.rank : 2 * item.rank;
  const int slabs = (rows + 63) / 64;
  const int most = item.one_a ? kOneAShrinkTokens : kLargeShrinkTokens;
  const int pieces = (num_tokens + most - 1) / most;
  const int of_piece = (num_tokens + pieces - 1) / pieces;
  if (slabs == 0) return;
  int at = atomicAdd(&p.workspace.counts->num_shrink_items, slabs * pieces);
  for (item.slab = 0; item.slab < slabs; ++item.slab) {
    for (int i = 0; i < pieces; ++i) {
      item.first_row = first + i * of_piece;
      item.num_tokens = min(of_piece, num_tokens - i * of_piece);
      p.workspace.shrink_items[at++] = item;
    }
    item.factor += int64_t{64} * 2 * p.sizes.hidden_size;
  }
}

// Of each 32 tokens of a tile those with which a run begins.
using RunStarts = uint32_t[kLargeTileTokens / 32];

// The token with which run r begins, or `num_tokens` if there is none.
__device__ int start_of_run(const RunStarts& starts, int r, int num_tokens) {
  int start = num_tokens;
#pragma unroll
  for (int i = 0; i < kLargeTileTokens / 32; ++i) {
    const int count = __popc(starts[i]);
    if (r >= 0 && r < count) {
      uint32_t bits = starts[i];
      for (int skip = r; skip > 0; --skip) bits &= bits - 1;
      start = 32 * i + __ffs(bits) - 1;
    }
    r -= count;
  }
  return start;
}

// Runs of a tile, neighbours of one adapter, and the shrinks they need. Tokens of no adapter come
// before all others. Returns how many there are.
__device__ int list_runs(const MoeLayerParams& p, const RoutingScratch& s, const MoeTokenTile& tile,
                         int lane) {
  constexpr int kParts = kLargeTileTokens / 32;
  int slot[kParts];  // all on their way at once
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const int n = 32 * i + lane;
    slot[i] = n < tile.num_tokens ? __ldcg(s.slot_of_row + tile.first_row + n) : kNoAdapter;
  }
  RunStarts starts;
  int num_runs = 0;
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const int left = __shfl_up_sync(kAllLanes, slot[i], 1);
    const int last = i > 0 ? __shfl_sync(kAllLanes, slot[max(0, i - 1)], 31) : kNoAdapter;
    starts[i] = __ballot_sync(kAllLanes, slot[i] >= 0 && slot[i] != (lane > 0 ? left : last));
    num_runs += __popc(starts[i]);
  }
  for (int r = lane; r < num_runs; r += 32) {
    const int begin = start_of_run(starts, r, tile.num_tokens);
    const int end = start_of_run(starts, r + 1, tile.num_tokens);
    const int of_run = __ldcg(s.slot_of_row + tile.first_row + begin);
    const MoeAdapterSlot& adapter = p.adapters[of_run];
    p.workspace.large_runs[tile.first_row + r] = {
        .expand_gate_up = adapter.expand_gate_up + tile.expert * adapter.expand_gate_up_stride,
        .shrink_down = adapter.shrink_down + tile.expert * adapter.shrink_down_stride,
        .expand_down = adapter.expand_down + tile.expert * adapter.expand_down_stride,
        .scaling_down = adapter.scaling_down,
        .slot = of_run,
        .begin = begin,
        .end = end,
        .rank_gate_up = adapter.rank_gate_up,
        .rank_down = adapter.rank_down};
    if (adapter.shrink_gate_up_stride == 0) continue;
    list_shrink(p, shrink_item(adapter, tile.expert), tile.first_row + begin, end - begin);
  }
  return num_runs;
}

// The i-th of all tiles.
__device__ void list_with_runs(const MoeLayerParams& p, const RoutingScratch& s, int i, int lane) {
  const int key = __ldcg(s.key_of_tile + i), j = i - __ldcg(s.first_tile + key);
  const int count = __ldcg(s.count + key), first_entry = __ldcg(s.first_other + key);
  MoeTokenTile tile = tile_of(p, key, count, __ldcg(s.first_row + key), j);
  tile.num_runs = list_runs(p, s, tile, lane);
  if (lane == 0) list_tile(p, tile, count, j, i, first_entry);
}

__global__ __launch_bounds__(kRoutingThreads) void moe_large_list_kernel(
    const __grid_constant__ MoeLayerParams p) {
  const RoutingScratch s = scratch_of(p);
  // Neighbouring tiles go to different CTAs.
  const int warp = threadIdx.x / 32 * gridDim.x + blockIdx.x;
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int num_tiles = __ldcg(&p.workspace.counts->num_tiles);
  for (int i = warp; i < num_tiles; i += gridDim.x * kRoutingWarps)
    list_with_runs(p, s, i, threadIdx.x % 32);
  // An A that experts share is multiplied once a token.
  for (int slot = blockIdx.x * kRoutingThreads + threadIdx.x; slot < p.num_slots;
       slot += gridDim.x * kRoutingThreads) {
    const MoeAdapterSlot& adapter = p.adapters[slot];
    const int begin = __ldcg(s.slot_begin + slot + 1), end = __ldcg(s.slot_begin + slot + 2);
    if (begin == end || adapter.shrink_gate_up_stride != 0) continue;
    list_shrink(p, shrink_item(adapter, 0), p.workspace.max_rows + begin, end - begin);
  }
}

}  // namespace

void launch_large_routing(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const int num_keys = p.sizes.all_experts();
  const int routers =
      std::min((p.num_tokens + kRoutingWarps - 1) / kRoutingWarps, 2 * plan.num_sms);
  const int order = p.adapters != nullptr ? 1 : 0;
  const auto route = p.sizes.num_experts <= 256 ? moe_large_route_kernel<8>
                                                : moe_large_route_kernel<kMaxExperts / 32>;
  const size_t order_bytes =
      order * sizeof(int32_t) * kRoutingWarps * (static_cast<size_t>(p.num_slots) + 1);
  const int chunks = num_chunks(p.num_tokens);
  const int quantizers = (quantize_tasks(p) + kRoutingWarps - 1) / kRoutingWarps;
  const size_t member_bytes =
      sizeof(int32_t) * static_cast<size_t>(num_keys) * ((chunk_tokens(p.num_tokens) + 31) / 32);
  const dim3 cta(kRoutingThreads);
  static const bool allowed = [] {
    constexpr size_t kMost = 200 * 1024;
    allow_shared_bytes("moe_large_route", moe_large_route_kernel<8>, kMost);
    allow_shared_bytes("moe_large_route", moe_large_route_kernel<kMaxExperts / 32>, kMost);
    allow_shared_bytes("moe_large_count", moe_large_count_kernel, kMost);
    allow_shared_bytes("moe_large_place", moe_large_place_kernel, kMost);
    return true;
  }();
  (void)allowed;
  launch("moe_large_route", route,
         {.grid = dim3(routers + order), .cta = cta, .shared_bytes = order_bytes}, stream, p);
  launch("moe_large_count", moe_large_count_kernel,
         {.grid = dim3(chunks), .cta = cta, .shared_bytes = member_bytes}, stream, p);
  launch("moe_large_place", moe_large_place_kernel,
         {.grid = dim3(chunks + quantizers),
          .cta = cta,
          .shared_bytes = member_bytes + sizeof(int32_t) * num_keys},
         stream, p);
  if (p.adapters != nullptr) {
    launch("moe_large_list", moe_large_list_kernel, {.grid = dim3(plan.num_sms), .cta = cta},
           stream, p);
  }
}

}  // namespace braid::kernels

#include <algorithm>

#include "kernels/common/counter.cuh"
#include "kernels/common/launch.h"
#include "kernels/moe_routing/moe_routing.cuh"

namespace braid::kernels {
namespace {

// Tokens up to which one launch does everything, and up to which every CTA routes all of them
// itself: that costs less than telling each other.
constexpr int kFusedTokens = 256;
constexpr int kRedundantTokens = 16;
// In one launch some warps write the lists while the others store x.
constexpr int kListWarps = kRoutingWarps / 2;

// Of an adapter slot in shared memory.
constexpr int kSlotInts = sizeof(MoeAdapterSlot) / sizeof(int32_t);

enum class RoutingPart { kAll, kRoute, kSort, kQuantize };

__device__ void store_route(const MoeLayerParams& p, int token, int lane, int expert, float weight,
                            int32_t* expert_of_pair, bool write_out) {
  const int per_token = p.sizes.pairs_per_token(), shared = p.sizes.num_shared_experts;
  if (lane < p.sizes.top_k) {
    expert_of_pair[token * per_token + lane] = expert == kNoExpert ? -1 : expert + shared;
    if (write_out) {
      p.topk_ids[token * p.sizes.top_k + lane] = expert;
      p.workspace.weight_of_pair[token * per_token + lane] = weight;
    }
  } else if (lane < per_token) {
    expert_of_pair[token * per_token + lane] = 0;
    if (write_out) {
      p.workspace.weight_of_pair[token * per_token + lane] =
          p.shared_weight != nullptr ? p.shared_weight[token] : 1.0f;
    }
  }
}

// Says that this CTA has come here; grid_barrier_wait() returns when all have. All are resident.
__device__ void grid_barrier_arrive(int32_t* arrived, bool with_results) {
  __syncthreads();
  if (threadIdx.x == 0) {
    with_results ? count_release(arrived) : static_cast<void>(atomicAdd(arrived, 1));
  }
}
__device__ void grid_barrier_wait(const int32_t* arrived) {
  if (threadIdx.x == 0) {
    while (load_acquire(arrived) < static_cast<int>(gridDim.x)) {
    }
  }
  __syncthreads();
}

// What other CTAs have written, past L1, all loads at once.
__device__ void load_pairs(const int32_t* from, int num_pairs, int32_t* to) {
  // A thread has 1 of 64 tokens of 8 pairs, 9 of 256 tokens of 17.
  constexpr int kAtOnce = 3;
#pragma unroll 1
  for (int begin = threadIdx.x; begin < num_pairs; begin += kAtOnce * kRoutingThreads) {
    int32_t value[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = begin + i * kRoutingThreads;
      if (at < num_pairs) value[i] = __ldcg(from + at);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = begin + i * kRoutingThreads;
      if (at < num_pairs) to[at] = value[i];
    }
  }
}

template <RoutingPart kPart, int kExpertsPerLane>
__global__ __launch_bounds__(kRoutingThreads, kExpertsPerLane <= 4 ? 2 : 1) void moe_routing_kernel(
    const __grid_constant__ MoeLayerParams p, const RoutingPlan plan, int max_rows) {
  // --- who am I ---
  constexpr bool kAll = kPart == RoutingPart::kAll;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int per_token = p.sizes.pairs_per_token(), num_pairs = p.num_tokens * per_token;
  const int num_keys = p.sizes.all_experts(), depth = p.sizes.hidden_size / 128;
  extern __shared__ __align__(16) int32_t dynamic_shared[];
  MoeAdapterSlot* const slots = reinterpret_cast<MoeAdapterSlot*>(dynamic_shared);  // [S]
  int32_t* const shared = dynamic_shared + kSlotInts * p.num_slots;
  int32_t* const next = shared;                 // [keys]
  int32_t* const warp_count = next + num_keys;  // [warps, max(keys, S + 1)] + [S + 1]
  const RoutingScratch s = routing_scratch(kAll ? shared : p.workspace.sort_scratch, num_pairs,
                                           p.num_tokens, max_rows, num_keys, p.num_slots);
  let_next_kernel_start();
  if constexpr (kAll) {
    // --- what does not need the previous kernel ---
    const int words = (p.num_tokens + 31) / 32;
    for (int i = threadIdx.x; i < num_keys * words; i += kRoutingThreads) s.members[i] = 0;
    for (int r = threadIdx.x; r < max_rows; r += kRoutingThreads)
      s.token_of_row[r] = s.slot_of_row[r] = -1;
    // The adapters and whose tokens they are do not come from the kernel before.
    if (p.adapters != nullptr) load_slots(p, slots);
    order_tokens(p, s, reinterpret_cast<int32_t*>(s.members + num_keys * words) + num_keys * words);
  }
  wait_for_previous_kernel();

  // --- first loads of x, while routing is decided ---
  // A task is 128 elements of a token. A warp that writes no lists quantises one before it knows
  // where it goes: all there are up to half as many tokens as SMs.
  constexpr int kFirstX = kAll ? kListWarps : 0, kXWarps = kRoutingWarps - kFirstX;
  const int num_tasks = p.num_tokens * depth;
  const int held_task = warp >= kFirstX ? blockIdx.x * kXWarps + warp - kFirstX : num_tasks;
  const auto load_x = [&](int task) {
    const int64_t at = int64_t{task / depth} * p.sizes.hidden_size + task % depth * 128 + 4 * lane;
    return *reinterpret_cast<const uint2*>(p.x + at);
  };
  const uint2 x = held_task < num_tasks ? load_x(held_task) : uint2{};
  if constexpr (kPart == RoutingPart::kSort) {
    if (p.adapters != nullptr) load_slots(p, slots);
  }

  // --- choose experts ---
  if constexpr (kAll || kPart == RoutingPart::kRoute) {
    const bool redundant = kAll && p.num_tokens <= kRedundantTokens;
    const RoutingScratch global = routing_scratch(p.workspace.sort_scratch, num_pairs, p.num_tokens,
                                                  max_rows, num_keys, p.num_slots);
    int32_t* const out = redundant ? s.expert_of_pair : global.expert_of_pair;
    // Few tokens on each SM: the choice is all latency.
    const int begin = redundant ? warp : warp * gridDim.x + blockIdx.x;
    const int step = redundant ? kRoutingWarps : gridDim.x * kRoutingWarps;
    for (int t = begin; t < p.num_tokens; t += step) {
      int expert;
      float weight;
      route_token<kExpertsPerLane>(p, t, lane, &expert, &weight);
      store_route(p, t, lane, expert, weight, out, !redundant || blockIdx.x == 0);
    }
    grid_barrier_arrive(&p.workspace.counts->arrived, !redundant);
    if constexpr (kAll) {
      if (!redundant) {
        grid_barrier_wait(&p.workspace.counts->arrived);
        load_pairs(out, num_pairs, s.expert_of_pair);
      }
    }
    __syncthreads();
  }
  const WeightFormat format = p.sizes.weight_format;
  const XPiece q = round_x(format, x, lane);

  // --- sort, and list the work ---
  if constexpr (kAll || kPart == RoutingPart::kSort) {
    SortedSizes sizes;
    if constexpr (kAll) {
      sizes = sort_pairs_by_bits(p, s, plan);
    } else {
      sizes = sort_pairs(p, s, warp_count, next, plan);
    }
    constexpr int kListThreads = kAll ? 32 * kListWarps : kRoutingThreads;
    if (threadIdx.x < kListThreads) write_lists<kListThreads>(p, s, slots, plan, sizes);
  }

  // --- quantise x into the rows ---
  if constexpr (kAll || kPart == RoutingPart::kQuantize) {
    if (held_task < num_tasks)
      store_x(p, s, held_task / depth, held_task % depth, q, plan.tile_tokens, lane);
    // What is left, by all.
    for (int task = gridDim.x * kXWarps + blockIdx.x * kRoutingWarps + warp; task < num_tasks;
         task += gridDim.x * kRoutingWarps) {
      store_x(p, s, task / depth, task % depth, round_x(format, load_x(task), lane),
              plan.tile_tokens, lane);
    }
  }
}

template <RoutingPart kPart, int kExpertsPerLane>
void launch_part_for(const MoeLayerParams& p, const MoePlan& plan, int num_ctas,
                     size_t shared_bytes, int max_rows, CudaStream stream) {
  constexpr auto kKernel = moe_routing_kernel<kPart, kExpertsPerLane>;
  static const bool allowed = [] {
    allow_shared_bytes("moe_routing", kKernel, 200 * 1024);
    return true;
  }();
  (void)allowed;
  launch("moe_routing", kKernel,
         {.grid = dim3(num_ctas), .cta = dim3(kRoutingThreads), .shared_bytes = shared_bytes},
         stream, p,
         RoutingPlan{.tile_tokens = plan.tile_tokens,
                     .num_guessed_experts = plan.num_guessed_experts,
                     .lists_lora_runs = lora_is_apart(p, plan)},
         max_rows);
}

template <RoutingPart kPart>
void launch_part(const MoeLayerParams& p, const MoePlan& plan, int num_ctas, int64_t shared_ints,
                 int max_rows, CudaStream stream) {
  const auto bytes = static_cast<size_t>(4 * shared_ints);
  if (p.sizes.num_experts <= 128) {
    launch_part_for<kPart, 4>(p, plan, num_ctas, bytes, max_rows, stream);
  } else if (p.sizes.num_experts <= 256) {
    launch_part_for<kPart, 8>(p, plan, num_ctas, bytes, max_rows, stream);
  } else {
    launch_part_for<kPart, kMaxExperts / 32>(p, plan, num_ctas, bytes, max_rows, stream);
  }
}

}  // namespace

void launch_moe_routing(const MoeLayerParams& p, const MoePlan& plan, CudaStream stream) {
  const int num_pairs = p.num_tokens * p.sizes.pairs_per_token();
  const int num_keys = p.sizes.all_experts();
  const int max_rows = (num_pairs + 7 * std::min(num_pairs, num_keys) + 15) / 8 * 8;
  const int tasks = p.num_tokens * (p.sizes.hidden_size / 128);
  constexpr int kXWarps = kRoutingWarps - kListWarps;
  const int num_ctas = std::min((tasks + kXWarps - 1) / kXWarps, plan.num_sms);
  if (p.num_tokens <= kFusedTokens) {
    const int64_t ints =
        int64_t{kSlotInts} * p.num_slots +
        routing_scratch_ints(num_pairs, p.num_tokens, max_rows, num_keys, p.num_slots) +
        2 * int64_t{num_keys} * ((p.num_tokens + 31) / 32) +
        (p.adapters != nullptr ? 8 * (int64_t{p.num_slots} + 1) : 0);
    launch_part<RoutingPart::kAll>(p, plan, num_ctas, ints, max_rows, stream);
    return;
  }
  const int routers = std::min((p.num_tokens + kRoutingWarps - 1) / kRoutingWarps, plan.num_sms);
  const int64_t sort_ints = int64_t{kSlotInts} * p.num_slots + num_keys +
                            kRoutingWarps * std::max(num_keys, p.num_slots + 1) + p.num_slots + 1;
  launch_part<RoutingPart::kRoute>(p, plan, routers, kSlotInts * p.num_slots, max_rows, stream);
  launch_part<RoutingPart::kSort>(p, plan, 1, sort_ints, max_rows, stream);
  launch_part<RoutingPart::kQuantize>(p, plan, 4 * plan.num_sms, 0, max_rows, stream);
}

}  // namespace braid::kernels

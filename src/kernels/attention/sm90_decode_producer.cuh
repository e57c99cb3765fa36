#pragma once

// The warp that numbers units and streams their keys and values.

#include <cstdint>

#include "kernels/attention/decode_units.cuh"
#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/mbarrier.cuh"

namespace braid::kernels {

// Numbers the splits of all sequences; returns how many there are.
__device__ __forceinline__ int count_splits(const AttentionBf16Params& p, int32_t* first_unit,
                                            int lane) {
  const int per_lane = (p.num_sequences + 31) / 32;
  int sum = 0;
  for (int i = 0; i < per_lane; ++i) {
    const int s = lane * per_lane + i;
    if (s >= p.num_sequences) break;
    const bool has_query = p.query_indptr[s + 1] > p.query_indptr[s];
    const int splits = has_query ? num_splits(p.context_len[s]) : 0;
    first_unit[s] = splits;
    sum += splits;
  }
  int before = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0u, before, step);
    if (lane >= step) before += other;
  }
  const int total = __shfl_sync(~0u, before, 31);
  before -= sum;
  for (int i = 0; i < per_lane; ++i) {
    const int s = lane * per_lane + i;
    if (s >= p.num_sequences) break;
    const int splits = first_unit[s];
    first_unit[s] = before;
    before += splits;
  }
  if (lane == 0) first_unit[p.num_sequences] = total;
  __syncwarp();
  return total;
}

// The sequence that has this split: the last one that begins at it or before.
__device__ __forceinline__ int sequence_of_split(const int32_t* first_unit, int num_sequences,
                                                 int split) {
  int low = 0, high = num_sequences;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (first_unit[middle] <= split ? low : high) = middle;
  }
  return low;
}

// The first unit goes by the CTA's number, the next ones to who is free.
class UnitClaimer {
 public:
  __device__ UnitClaimer(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                         int32_t* first_unit, int lane)
      : p_(p),
        workspace_(workspace),
        first_unit_(first_unit),
        lane_(lane),
        total_(count_splits(p, first_unit, lane) * p.kv.num_kv_heads),
        unit_(static_cast<int>(blockIdx.x)) {}

  __device__ __forceinline__ DecodeUnit unit() const {
    DecodeUnit u = {.sequence = -1};
    if (unit_ >= total_) return u;
    const int number = unit_ / p_.kv.num_kv_heads;
    u.sequence = sequence_of_split(first_unit_, p_.num_sequences, number);
    u.kv_head = unit_ - number * p_.kv.num_kv_heads;
    u.split = number - first_unit_[u.sequence];
    u.token = p_.query_indptr[u.sequence];
    const int context_len = p_.context_len[u.sequence], keys = keys_per_split(context_len);
    u.num_splits = num_splits(context_len);
    u.first_key = u.split * keys;
    u.num_keys = min(keys, context_len - u.first_key);
    return u;
  }

  // Asks for the next unit that nobody has begun: once the previous kernel has finished, a little
  // before this unit's last stage. Late, so that others who are free take it, but early enough for
  // the answer to be there in time.
  __device__ __forceinline__ void ask() {
    if (asked_) return;
    if (lane_ == 0)
      next_ = static_cast<int>(gridDim.x) + atomicAdd(&workspace_.counts->next_unit, 1);
    asked_ = true;
  }
  __device__ __forceinline__ void advance() {
    ask();
    unit_ = __shfl_sync(~0u, next_, 0);
    asked_ = false;
  }

 private:
  const AttentionBf16Params& p_;
  const AttentionWorkspace& workspace_;
  const int32_t* const first_unit_;
  const int lane_;
  const int total_;
  int unit_;
  int next_ = -1;  // lane 0's
  bool asked_ = false;
};

// Warp `producer` of several, each of which has every kProducers-th stage. The first one also says
// which unit is next.
template <class Config>
__device__ __forceinline__ void decode_produce(const AttentionBf16Params& p,
                                               const AttentionWorkspace& workspace,
                                               DecodeShared<Config>& shared, int producer,
                                               int lane) {
  constexpr int kStageKeys = Config::kStageKeys, kStep = Config::kProducers;
  static_assert(Config::kConsumers % kStep == 0 && Config::kStages % kStep == 0);
  const int kv_heads = p.kv.num_kv_heads, block_shift = 31 - __clz(p.kv.block_size);
  const auto* const k_cache = static_cast<const uint8_t*>(p.kv.k_cache);
  const auto* const v_cache = static_cast<const uint8_t*>(p.kv.v_cache);
  bool waited = false;
  const auto wait = [&] {
    if (waited) return;
    wait_for_previous_kernel();
    fence_proxy_async_global();
    waited = true;
  };
  const auto stream = [&](const DecodeUnit& u, uint32_t first_stage, auto on_stage) {
    const int num_stages = u.num_stages(kStageKeys, Config::kConsumers);
    const bool has_last_key = u.split + 1 == u.num_splits;
    const int32_t* const table = p.block_table + int64_t{u.sequence} * p.max_kv_blocks;
    int64_t offset_of_lane = 0;  // bytes, of this warp's stage (n & ~31) + lane
#pragma unroll 1
    for (int i = producer, n = 0; i < num_stages; i += kStep, ++n) {
      const int key_of_lane = (i + lane * kStep) * kStageKeys;
      if (n % 32 == 0 && key_of_lane < u.num_keys) {
        const int key = u.first_key + key_of_lane;
        const int64_t row = (int64_t{table[key >> block_shift]} * kv_heads + u.kv_head)
                                << block_shift |
                            (key & (p.kv.block_size - 1));
        offset_of_lane = row * Config::kDim * element_bytes(Config::kFormat);
      }
      const int64_t offset = __shfl_sync(~0u, offset_of_lane, n % 32);
      // The newest key is written by the kernel before this one.
      if (has_last_key && (i + 1) * kStageKeys >= u.num_keys) wait();
      on_stage(num_stages - i);
      const uint32_t count = first_stage + i;
      const int slot = count % Config::kStages;
      // The first round finds its slots free.
      mbarrier_wait(&shared.empty[slot], (count / Config::kStages % 2) ^ 1);
      if (lane == 0 && i * kStageKeys >= u.num_keys) {
        mbarrier_arrive(&shared.full[slot]);
      } else if (lane == 0) {
        mbarrier_arrive_expect(&shared.full[slot], 2 * Config::kPieceBytes);
        bulk_copy(shared.ring[slot][0], k_cache + offset, Config::kPieceBytes, &shared.full[slot],
                  CachePolicy::kEvictFirst);
        bulk_copy(shared.ring[slot][1], v_cache + offset, Config::kPieceBytes, &shared.full[slot],
                  CachePolicy::kEvictFirst);
      }
    }
    return first_stage + num_stages;
  };

  uint32_t first_stage = 0;  // of the unit, counted from the kernel's start
  if (producer > 0) {
    for (int index = 0;; ++index) {
      const DecodeUnit u = take_unit(shared, index, lane);
      if (u.sequence < 0) return;
      first_stage = stream(u, first_stage, [](int) {});
    }
  }
  UnitClaimer claimer(p, workspace, shared.first_unit, lane);
  for (int index = 0;; ++index) {
    const DecodeUnit u = claimer.unit();
    const int slot = index % kUnitSlots;
    mbarrier_wait(&shared.unit_empty[slot], (index / kUnitSlots % 2) ^ 1);
    if (lane == 0) {
      shared.units[slot] = u;
      mbarrier_arrive(&shared.unit_full[slot]);
    }
    if (u.sequence < 0) break;
    first_stage = stream(u, first_stage, [&](int stages_left) {
      if (waited && stages_left <= Config::kConsumers) claimer.ask();
    });
    wait();
    claimer.advance();
  }
  wait();
  let_next_kernel_start();
  // The last CTA leaves the counts as the next launch wants them.
  if (lane == 0) {
    __threadfence();
    if (atomicAdd(&workspace.counts->finished, 1) == static_cast<int>(gridDim.x) - 1) {
      __threadfence();
      workspace.counts->next_unit = 0;
      workspace.counts->finished = 0;
    }
  }
}

}  // namespace braid::kernels

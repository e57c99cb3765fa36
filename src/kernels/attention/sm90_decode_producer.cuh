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

template <class Config>
__device__ __forceinline__ void decode_produce(const AttentionBf16Params& p,
                                               const AttentionWorkspace& workspace,
                                               DecodeShared<Config>& shared, int lane) {
  constexpr int kStageKeys = Config::kStageKeys;
  const int kv_heads = p.kv.num_kv_heads;
  const int total = count_splits(p, shared.first_unit, lane) * kv_heads;
  const auto* const k_cache = static_cast<const uint8_t*>(p.kv.k_cache);
  const auto* const v_cache = static_cast<const uint8_t*>(p.kv.v_cache);
  const int block_shift = 31 - __clz(p.kv.block_size);
  bool waited = false;
  int stage = 0;
  uint32_t parity = 1;  // of `empty`: the first round finds its slots free
  int unit = static_cast<int>(blockIdx.x);
  for (int index = 0;; ++index) {
    // --- which ---
    DecodeUnit u = {.sequence = -1};
    int first_key = 0;
    if (unit < total) {
      const int number = unit / kv_heads;
      u.sequence = sequence_of_split(shared.first_unit, p.num_sequences, number);
      u.kv_head = unit - number * kv_heads;
      u.split = number - shared.first_unit[u.sequence];
      u.token = p.query_indptr[u.sequence];
      const int context_len = p.context_len[u.sequence], keys = keys_per_split(context_len);
      u.num_splits = num_splits(context_len);
      first_key = u.split * keys;
      u.num_keys = min(keys, context_len - first_key);
    }
    mbarrier_wait(&shared.unit_empty[index % 2], (index / 2 % 2) ^ 1);
    if (lane == 0) {
      shared.units[index % 2] = u;
      mbarrier_arrive(&shared.unit_full[index % 2]);
    }
    if (u.sequence < 0) break;

    // --- its keys and values ---
    // The next unit that nobody has begun is asked for a little before this one's last stage: late,
    // so that others who are free take it, but early enough for the answer to be there in time.
    int next_unit = -1;
    bool asked = false;
    const auto ask = [&] {
      if (lane == 0)
        next_unit = static_cast<int>(gridDim.x) + atomicAdd(&workspace.counts->next_unit, 1);
      asked = true;
    };
    const int num_stages = u.num_stages(kStageKeys, Config::kConsumers);
    const bool has_last_key = u.split + 1 == u.num_splits;
    const int32_t* const table = p.block_table + int64_t{u.sequence} * p.max_kv_blocks;
    int64_t offset_of_lane = 0;  // bytes, of stage (i & ~31) + lane
    for (int i = 0; i < num_stages; ++i) {
      if (i % 32 == 0 && (i + lane) * kStageKeys < u.num_keys) {
        const int key = first_key + (i + lane) * kStageKeys;
        const int64_t row = (int64_t{table[key >> block_shift]} * kv_heads + u.kv_head)
                                << block_shift |
                            (key & (p.kv.block_size - 1));
        offset_of_lane = row * Config::kDim * element_bytes(Config::kFormat);
      }
      const int64_t offset = __shfl_sync(~0u, offset_of_lane, i % 32);
      // The newest key is written by the kernel before this one.
      if (!waited && has_last_key && (i + 1) * kStageKeys >= u.num_keys) {
        wait_for_previous_kernel();
        fence_proxy_async();
        waited = true;
      }
      if (waited && !asked && i + Config::kConsumers >= num_stages) ask();
      mbarrier_wait(&shared.empty[stage], parity);
      if (lane == 0 && i * kStageKeys >= u.num_keys) {
        mbarrier_arrive(&shared.full[stage]);
      } else if (lane == 0) {
        mbarrier_arrive_expect(&shared.full[stage], 2 * Config::kPieceBytes);
        bulk_copy(shared.ring[stage][0], k_cache + offset, Config::kPieceBytes, &shared.full[stage],
                  CachePolicy::kEvictFirst);
        bulk_copy(shared.ring[stage][1], v_cache + offset, Config::kPieceBytes, &shared.full[stage],
                  CachePolicy::kEvictFirst);
      }
      if (++stage == Config::kStages) stage = 0, parity ^= 1;
    }

    if (!waited) {
      wait_for_previous_kernel();
      fence_proxy_async();
      waited = true;
    }
    if (!asked) ask();
    unit = __shfl_sync(~0u, next_unit, 0);
  }
  if (!waited) wait_for_previous_kernel();
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

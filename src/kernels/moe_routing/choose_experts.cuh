#pragma once

// Device code that chooses the experts of one token, by one warp.

#include <cstdint>

#include "base/ids.h"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// Orders floats as unsigned integers; 0 comes before every number.
__device__ inline uint32_t sortable(float x) {
  const uint32_t bits = __float_as_uint(x);
  return (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
}

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
      // Code that runs once is fetched once: a short loop is faster than cleverer, longer code.
#pragma unroll 1
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

}  // namespace braid::kernels

#pragma once

// Norm and rotation of one head of q or k, shared by the kernels that do them, so that the bits are
// the same. Neighbouring lanes have 8 neighbouring elements each.

#include <cstdint>

#include "kernels/attention/kv_elements.cuh"

namespace braid::kernels {

// Lanes of a head: 8, 16 or 32 (of 12, 4 have none of it).
constexpr int lanes_per_head(int head_dim) {
  return head_dim <= 64 ? 8 : head_dim <= 128 ? 16 : 32;
}

// Cosine and sine. The angle is a float product in transformers, and so here: it is part of the
// definition.
__device__ __forceinline__ float2 rope_turn(int position, float inv_freq) {
  float2 turn;
  sincosf(static_cast<float>(position) * inv_freq, &turn.y, &turn.x);
  return turn;
}

__device__ __forceinline__ void unpack_8(const uint4& eight, float (&x)[8]) {
  const uint32_t two[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = bf16_pair(two[i]);
    x[2 * i] = f.x, x[2 * i + 1] = f.y;
  }
}

// By the whole warp; changes x where `has_norm`.
__device__ __forceinline__ void norm_head(float (&x)[8], const uint4& weight, bool has_norm,
                                          int lanes, int head_dim, float eps) {
  float squares = 0, w[8];
#pragma unroll
  for (const float value : x) squares = fmaf(value, value, squares);
  for (int step = 1; step < lanes; step *= 2) squares += __shfl_xor_sync(~0u, squares, step);
  if (!has_norm) return;
  const float scale = rsqrtf(squares / static_cast<float>(head_dim) + eps);
  unpack_8(weight, w);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] *= scale * w[i];
}

// By the whole warp; changes x where `is_turned`. `turn` has cosine and sine of the elements before
// `half`, which are rotated with those `half` behind, which another lane has.
__device__ __forceinline__ void rotate_head(float (&x)[8], const float2* turn, bool is_turned,
                                            int half, int lane, int lane_of_head) {
  const int half_lanes = half / 8;
  const bool first = lane_of_head < half_lanes;
  const int partner = lane + (first ? half_lanes : -half_lanes);
  is_turned = is_turned && lane_of_head < 2 * half_lanes;
  const auto* const pairs = reinterpret_cast<const float4*>(turn) +
                            4 * (first ? lane_of_head : lane_of_head - half_lanes);
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    float4 t = make_float4(1, 0, 1, 0);
    if (is_turned) t = pairs[i / 2];
    const float other = __shfl_sync(~0u, x[i], partner & 31),
                next = __shfl_sync(~0u, x[i + 1], partner & 31);
    if (!is_turned) continue;
    x[i] = fmaf(x[i], t.x, first ? -(other * t.y) : other * t.y);
    x[i + 1] = fmaf(x[i + 1], t.z, first ? -(next * t.w) : next * t.w);
  }
}

}  // namespace braid::kernels

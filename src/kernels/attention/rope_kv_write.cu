// Norm and rotation of q and k, and the write of k and v into the paged cache.

#include "kernels/attention/enqueue.h"
#include "kernels/attention/kv_elements.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"

namespace braid::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// A head is 8 elements a lane, so that 8, 16 or 32 lanes (of 12, 4 idle) share one.
constexpr int lanes_per_head(int head_dim) {
  return head_dim <= 64 ? 8 : head_dim <= 128 ? 16 : 32;
}

// One token and as many of its heads (of q, k and v) as the CTA's warps hold at a time.
template <KvFormat kFormat>
__global__ __launch_bounds__(kThreads) void rope_kv_write_kernel(
    const __grid_constant__ RopeKvWriteBf16Params p) {
  // --- who am I ---
  const int head_dim = p.kv.head_dim, half = p.rotary_dim / 2;
  const int lanes = lanes_per_head(head_dim), heads_per_warp = 32 / lanes;
  const int lane = threadIdx.x % 32, lane_of_head = lane % lanes;
  const int head = (static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / 32) *
                       heads_per_warp +
                   lane / lanes;
  const int token = blockIdx.x, kv_heads = p.kv.num_kv_heads;
  const bool active = head < p.num_heads + 2 * kv_heads && 8 * lane_of_head < head_dim;
  const bool is_q = head < p.num_heads, is_v = head >= p.num_heads + kv_heads;

  // --- angles, once for all heads ---
  __shared__ float2 turn[128];  // cosine and sine
  if (static_cast<int>(threadIdx.x) < half) {
    // The angle is a float product in transformers, and so here: it is part of the definition.
    const float angle = static_cast<float>(p.positions[token]) * p.inv_freq[threadIdx.x];
    sincosf(angle, &turn[threadIdx.x].y, &turn[threadIdx.x].x);
  }
  const int kv_slot = p.kv_slot_of_token[token];
  let_next_kernel_start();
  wait_for_previous_kernel();
  __syncthreads();

  // --- load and norm ---
  Bf16* const at = p.qkv + token * p.qkv_stride + int64_t{head} * head_dim + 8 * lane_of_head;
  float x[8] = {};
  if (active) {
    const uint4 eight = __ldcg(reinterpret_cast<const uint4*>(at));
    const uint32_t two[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 f = bf16_pair(two[i]);
      x[2 * i] = f.x, x[2 * i + 1] = f.y;
    }
  }
  const Bf16* const norm = is_q ? p.q_norm : is_v ? nullptr : p.k_norm;
  float squares = 0;
#pragma unroll
  for (const float value : x) squares = fmaf(value, value, squares);
  for (int step = 1; step < lanes; step *= 2) squares += __shfl_xor_sync(~0u, squares, step);
  if (norm != nullptr && active) {
    const float scale = rsqrtf(squares / static_cast<float>(head_dim) + p.rms_norm_eps);
    const uint4 eight = __ldg(reinterpret_cast<const uint4*>(norm + 8 * lane_of_head));
    const uint32_t two[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 w = bf16_pair(two[i]);
      x[2 * i] *= scale * w.x, x[2 * i + 1] *= scale * w.y;
    }
  }

  // --- rotate: element i < half with i + half, which another lane has ---
  const int half_lanes = half / 8;
  const bool first = lane_of_head < half_lanes;
  const int partner =
      lane - lane_of_head + (first ? lane_of_head + half_lanes : lane_of_head - half_lanes);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float other = __shfl_sync(~0u, x[i], partner & 31);
    if (is_v || lane_of_head >= 2 * half_lanes) continue;
    const float2 t = turn[8 * (first ? lane_of_head : lane_of_head - half_lanes) + i];
    x[i] = first ? x[i] * t.x - other * t.y : x[i] * t.x + other * t.y;
  }

  // --- store ---
  if (!active) return;
  if (is_q) {
    KvElements<KvFormat::kBf16>::store_8(at, 0, x, 1.0f);
    return;
  }
  if (kv_slot < 0) return;
  const int kv_head = head - p.num_heads - (is_v ? kv_heads : 0);
  const int block = kv_slot / p.kv.block_size, offset = kv_slot % p.kv.block_size;
  const int64_t row = (int64_t{block} * kv_heads + kv_head) * p.kv.block_size + offset;
  KvElements<kFormat>::store_8(is_v ? p.kv.v_cache : p.kv.k_cache,
                               row * head_dim + 8 * lane_of_head, x,
                               1.0f / (is_v ? p.kv.v_scale : p.kv.k_scale));
}

template <KvFormat kFormat>
void launch_for_format(const RopeKvWriteBf16Params& p, CudaStream stream) {
  const int heads = p.num_heads + 2 * p.kv.num_kv_heads;
  const int heads_per_cta = kWarps * (32 / lanes_per_head(p.kv.head_dim));
  launch("rope_kv_write", rope_kv_write_kernel<kFormat>,
         {.grid = dim3(static_cast<unsigned>(p.num_tokens),
                       static_cast<unsigned>((heads + heads_per_cta - 1) / heads_per_cta)),
          .cta = dim3(kThreads)},
         stream, p);
}

}  // namespace

namespace internal {

void enqueue_rope_kv_write(const RopeKvWriteBf16Params& p, CudaStream stream) {
  switch (p.kv.format) {
    case KvFormat::kBf16:
      return launch_for_format<KvFormat::kBf16>(p, stream);
    case KvFormat::kE4m3:
      return launch_for_format<KvFormat::kE4m3>(p, stream);
  }
}

}  // namespace internal
}  // namespace braid::kernels

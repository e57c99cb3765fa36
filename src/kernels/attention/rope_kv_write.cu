// Norm and rotation of q and k, and the write of k and v into the paged cache.

#include "kernels/attention/enqueue.h"
#include "kernels/attention/kv_elements.cuh"
#include "kernels/attention/rope_head.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"

namespace braid::kernels {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

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
  __shared__ alignas(16) float2 turn[128];  // cosine and sine
  if (static_cast<int>(threadIdx.x) < half) {
    turn[threadIdx.x] = rope_turn(p.positions[token], p.inv_freq[threadIdx.x]);
  }
  const int kv_slot = p.kv_slot_of_token[token];
  let_next_kernel_start();
  wait_for_previous_kernel();
  __syncthreads();

  // --- load, norm, rotate ---
  Bf16* const at = p.qkv + token * p.qkv_stride + int64_t{head} * head_dim + 8 * lane_of_head;
  const Bf16* const norm = is_q ? p.q_norm : is_v ? nullptr : p.k_norm;
  const bool has_norm = norm != nullptr && active;
  uint4 eight = make_uint4(0, 0, 0, 0), weight = eight;
  if (active) eight = __ldcg(reinterpret_cast<const uint4*>(at));
  if (has_norm) weight = __ldg(reinterpret_cast<const uint4*>(norm + 8 * lane_of_head));
  float x[8];
  unpack_8(eight, x);
  norm_head(x, weight, has_norm, lanes, head_dim, p.rms_norm_eps);
  rotate_head(x, turn, !is_v, half, lane, lane_of_head);

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

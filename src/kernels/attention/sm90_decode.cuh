#pragma once

// Decode attention: one query a sequence, every SM busy with a share of the keys.
//
// A unit is one KV head of one sequence over keys_per_split() of its keys. A CTA has neighbouring
// units, as many as any other CTA. Its warps take stages of 16 keys in turn; each streams its own
// keys and values through a ring of its own, over the ends of units, and has sums of its own, which
// the warps join at a unit's end. The CTA that has a sequence's last unit joins the units.
//
// Keys lie on the rows of the tensor cores' tiles and the heads of a group on the columns, so that
// 8 heads share one pass over the keys:
//
//   S^T [16 keys, 8 heads] = keys [16, D] q^T      O^T [D, 8 heads] += values^T [D, 16] P^T
//
// Where `rope` is given, it is what rope_kv_write does first: who begins with units of a KV head
// norms and rotates the group's heads of q; who has the newest key makes it, keeps it beside the
// ring, and writes it to the cache for later steps.
//
// beside_previous: the kernel in front (prefill attention) is not waited for, but that this one
// does not end before it.

#include "kernels/attention/sm90_decode_warp.cuh"

namespace braid::kernels {

template <class Config>
__global__ __launch_bounds__(Config::kThreads, Config::kCtasPerSm) void attention_decode_kernel(
    const __grid_constant__ AttentionBf16Params p,
    const __grid_constant__ RopeKvWriteBf16Params rope,
    const __grid_constant__ AttentionWorkspace workspace, bool beside_previous) {
  extern __shared__ __align__(128) uint8_t bytes[];
  auto& shared = *reinterpret_cast<DecodeShared<Config>*>(bytes);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp == 0) {
    number_splits(p, shared.first_split, lane);
  } else if (warp <= 2) {
    const Bf16* const norm = warp == 1 ? rope.q_norm : rope.k_norm;
    if (norm != nullptr && lane < Config::kDim / 8)
      shared.norms[warp - 1][lane] = reinterpret_cast<const uint4*>(norm)[lane];
  }
  __syncthreads();
  let_next_kernel_start();
  // Few units go to the first CTAs, which the hardware gives an SM each.
  const int cta = static_cast<int>(blockIdx.x),
            num_units = shared.first_split[p.num_sequences] * p.kv.num_kv_heads,
            num_ctas = min(static_cast<int>(gridDim.x), num_units);
  if (cta >= num_ctas) {
    // A kernel must not end before the one in front of it.
    if (cta == 0) wait_for_previous_kernel();
    return;
  }
  const int begin = static_cast<int>(int64_t{num_units} * cta / num_ctas),
            end = static_cast<int>(int64_t{num_units} * (cta + 1) / num_ctas);
  DecodeWarp<Config>(p, rope, workspace, shared, warp, lane, !beside_previous).run(begin, end);
  if (beside_previous && cta == 0) wait_for_previous_kernel();
}

}  // namespace braid::kernels

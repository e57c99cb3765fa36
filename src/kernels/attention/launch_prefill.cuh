#pragma once

#include <algorithm>
#include <bit>

#include "kernels/attention/sm90_prefill_kernel.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/tensor_map.h"

namespace braid::kernels {

template <class Config>
void launch_prefill(const AttentionBf16Params& p, int num_workers, int cluster, CudaStream stream) {
  constexpr const char* kName = "attention_prefill";
  static_assert(sizeof(PrefillShared<Config>) <= 227 * 1024);
  static const bool allowed = [] {
    allow_shared_bytes(kName, attention_prefill_kernel<Config>, sizeof(PrefillShared<Config>));
    return true;
  }();
  (void)allowed;
  const int box_rows = std::min(p.kv.block_size, Config::kTileKeys);
  const PrefillArguments arguments = {
      .params = p,
      .k_map = bf16_tensor_map(p.kv.k_cache, p.kv.head_dim, box_rows),
      .v_map = bf16_tensor_map(p.kv.v_cache, p.kv.head_dim, box_rows),
      .box_rows = box_rows,
      .block_shift = std::countr_zero(static_cast<uint32_t>(p.kv.block_size)),
      .cluster = cluster};
  launch(kName, attention_prefill_kernel<Config>,
         {.grid = dim3(static_cast<unsigned>(num_workers * cluster)),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(PrefillShared<Config>),
          .cluster = cluster},
         stream, arguments);
}

// SMs of the current device, which share the items.
inline int num_sms() {
  int device = 0, sms = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device),
             "cudaDevAttrMultiProcessorCount");
  return sms;
}

// Returns the CTAs, which have an SM each.
template <int kHeadDim>
int32_t launch_prefill_for_dim(const AttentionBf16Params& p, int32_t max_tokens,
                               CudaStream stream) {
  using Alone = PrefillConfig<kHeadDim, false>;
  // Items at most: each sequence rounds its rows up by less than a tile.
  const int64_t rows = int64_t{max_tokens} * (p.num_heads / p.kv.num_kv_heads);
  const int64_t tiles = p.num_sequences == 1 ? (rows + Alone::kRows - 1) / Alone::kRows
                                             : rows / Alone::kRows + p.num_sequences;
  const int64_t items = tiles * p.kv.num_kv_heads;
  const int sms = num_sms();
  if constexpr (Alone::kUnits) {
    // Fewer than SMs: clusters share them, where contexts may be longer than a unit.
    using Split = PrefillConfig<kHeadDim, true>;
    const int64_t most_keys = int64_t{p.max_kv_blocks} * p.kv.block_size;
    const bool are_long = most_keys > Split::kUnitTiles * Split::kTileKeys;
    const int cluster = !are_long                             ? 1
                        : Split::kMostCluster * items <= sms  ? Split::kMostCluster
                        : Split::kLeastCluster * items <= sms ? Split::kLeastCluster
                                                              : 1;
    if (cluster > 1) {
      launch_prefill<Split>(p, static_cast<int>(items), cluster, stream);
      return static_cast<int32_t>(items) * cluster;
    }
  }
  const auto workers = static_cast<int32_t>(std::min<int64_t>(items, sms));
  launch_prefill<Alone>(p, workers, 1, stream);
  return workers;
}

}  // namespace braid::kernels

#pragma once

#include <algorithm>

#include "kernels/attention/sm90_decode.cuh"
#include "kernels/common/launch.h"

namespace braid::kernels {

template <int kHeadDim, KvFormat kFormat, int kHeadTiles>
void launch_decode(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                   int32_t num_sms, CudaStream stream) {
  using Config = DecodeConfig<kHeadDim, kFormat, kHeadTiles>;
  static_assert(sizeof(DecodeShared<Config>) <= Config::kSharedBytes);
  constexpr const char* kName = "attention_decode";
  static const bool allowed = [] {
    allow_shared_bytes(kName, attention_decode_kernel<Config>, sizeof(DecodeShared<Config>));
    return true;
  }();
  (void)allowed;
  const int most = p.num_sequences * p.kv.num_kv_heads * kMaxSplits;
  launch(kName, attention_decode_kernel<Config>,
         {.grid = dim3(std::min(Config::kCtasPerSm * num_sms, most)),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(DecodeShared<Config>),
          .overlap_previous = !p.has_new_keys},
         stream, p, workspace);
}

// From the run-time sizes to the kernel made for them.
template <int kHeadDim>
void launch_decode_for_dim(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                           int32_t num_sms, CudaStream stream) {
  const bool two_tiles = p.num_heads / p.kv.num_kv_heads > 8;
  switch (p.kv.format) {
    case KvFormat::kBf16:
      return two_tiles ? launch_decode<kHeadDim, KvFormat::kBf16, 2>(p, workspace, num_sms, stream)
                       : launch_decode<kHeadDim, KvFormat::kBf16, 1>(p, workspace, num_sms, stream);
    case KvFormat::kE4m3:
      return two_tiles ? launch_decode<kHeadDim, KvFormat::kE4m3, 2>(p, workspace, num_sms, stream)
                       : launch_decode<kHeadDim, KvFormat::kE4m3, 1>(p, workspace, num_sms, stream);
  }
}

}  // namespace braid::kernels

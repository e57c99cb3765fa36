#pragma once

#include <algorithm>

#include "kernels/attention/sm90_decode.cuh"
#include "kernels/common/launch.h"

namespace braid::kernels {

template <int kHeadDim, KvFormat kFormat, int kHeadTiles>
void launch_decode(const AttentionBf16Params& p, const RopeKvWriteBf16Params& rope,
                   const AttentionWorkspace& workspace, int32_t num_sms, bool beside_previous,
                   CudaStream stream) {
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
         stream, p, rope, workspace, beside_previous);
}

// From the run-time sizes to the kernel made for them.
template <int kHeadDim>
void launch_decode_for_dim(const AttentionBf16Params& p, const RopeKvWriteBf16Params& rope,
                           const AttentionWorkspace& workspace, int32_t num_sms,
                           bool beside_previous, CudaStream stream) {
  const auto launch_format = [&]<KvFormat kFormat>() {
    return p.num_heads / p.kv.num_kv_heads > 8
               ? launch_decode<kHeadDim, kFormat, 2>(p, rope, workspace, num_sms, beside_previous,
                                                     stream)
               : launch_decode<kHeadDim, kFormat, 1>(p, rope, workspace, num_sms, beside_previous,
                                                     stream);
  };
  switch (p.kv.format) {
    case KvFormat::kBf16:
      return launch_format.template operator()<KvFormat::kBf16>();
    case KvFormat::kE4m3:
      return launch_format.template operator()<KvFormat::kE4m3>();
  }
}

}  // namespace braid::kernels

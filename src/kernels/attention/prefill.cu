#include "kernels/attention/enqueue.h"
#include "kernels/attention/sm90_prefill.cuh"
#include "kernels/common/launch.h"

namespace braid::kernels {
namespace {

template <int kHeadDim, KvFormat kFormat>
void launch_prefill(const AttentionBf16Params& p, int32_t max_tokens, CudaStream stream) {
  using Config = PrefillConfig<kHeadDim, kFormat>;
  constexpr const char* kName = "attention_prefill";
  static const bool allowed = [] {
    allow_shared_bytes(kName, attention_prefill_kernel<Config>, sizeof(PrefillShared<Config>));
    return true;
  }();
  (void)allowed;
  // Each sequence rounds its rows up by less than a tile.
  const int64_t rows = int64_t{max_tokens} * (p.num_heads / p.kv.num_kv_heads);
  const int64_t tiles = rows / Config::kRows + p.num_sequences;
  launch(kName, attention_prefill_kernel<Config>,
         {.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(p.kv.num_kv_heads)),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(PrefillShared<Config>)},
         stream, p);
}

template <int kHeadDim>
void launch_prefill_for_dim(const AttentionBf16Params& p, int32_t max_tokens, CudaStream stream) {
  switch (p.kv.format) {
    case KvFormat::kBf16:
      return launch_prefill<kHeadDim, KvFormat::kBf16>(p, max_tokens, stream);
    case KvFormat::kE4m3:
      return launch_prefill<kHeadDim, KvFormat::kE4m3>(p, max_tokens, stream);
  }
}

}  // namespace

namespace internal {

void enqueue_attention_prefill(const AttentionBf16Params& p, int32_t max_tokens,
                               CudaStream stream) {
  switch (p.kv.head_dim) {
    case 64:
      return launch_prefill_for_dim<64>(p, max_tokens, stream);
    case 96:
      return launch_prefill_for_dim<96>(p, max_tokens, stream);
    case 128:
      return launch_prefill_for_dim<128>(p, max_tokens, stream);
    case 256:
      return launch_prefill_for_dim<256>(p, max_tokens, stream);
  }
}

}  // namespace internal
}  // namespace braid::kernels

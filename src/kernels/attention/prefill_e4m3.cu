#include "kernels/attention/enqueue.h"
#include "kernels/attention/sm90_prefill_e4m3.cuh"
#include "kernels/common/launch.h"

namespace braid::kernels {
namespace {

template <int kHeadDim>
void launch_prefill(const AttentionBf16Params& p, int32_t max_tokens, CudaStream stream) {
  using Config = PrefillE4m3Config<kHeadDim>;
  constexpr const char* kName = "attention_prefill_e4m3";
  static const bool allowed = [] {
    allow_shared_bytes(kName, attention_prefill_e4m3_kernel<Config>,
                       sizeof(PrefillE4m3Shared<Config>));
    return true;
  }();
  (void)allowed;
  // Each sequence rounds its rows up by less than a tile.
  const int64_t rows = int64_t{max_tokens} * (p.num_heads / p.kv.num_kv_heads);
  const int64_t tiles = rows / Config::kRows + p.num_sequences;
  launch(kName, attention_prefill_e4m3_kernel<Config>,
         {.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(p.kv.num_kv_heads)),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(PrefillE4m3Shared<Config>)},
         stream, p);
}

}  // namespace

namespace internal {

void enqueue_attention_prefill_e4m3(const AttentionBf16Params& p, int32_t max_tokens,
                                    CudaStream stream) {
  switch (p.kv.head_dim) {
    case 64:
      return launch_prefill<64>(p, max_tokens, stream);
    case 96:
      return launch_prefill<96>(p, max_tokens, stream);
    case 128:
      return launch_prefill<128>(p, max_tokens, stream);
    case 256:
      return launch_prefill<256>(p, max_tokens, stream);
  }
}

}  // namespace internal
}  // namespace braid::kernels

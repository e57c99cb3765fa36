#include <algorithm>

#include "kernels/attention/enqueue.h"
#include "kernels/attention/launch_prefill.cuh"

namespace braid::kernels::internal {

int32_t enqueue_attention_prefill(const AttentionBf16Params& p, int32_t max_tokens,
                                  CudaStream stream) {
  if (p.kv.format == KvFormat::kE4m3) {
    enqueue_attention_prefill_e4m3(p, max_tokens, stream);
    return 0;
  }
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
  return 0;
}

}  // namespace braid::kernels::internal

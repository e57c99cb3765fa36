#include "kernels/attention/enqueue.h"
#include "kernels/attention/launch_decode.cuh"

namespace braid::kernels::internal {

void enqueue_attention_decode(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                              int32_t num_sms, CudaStream stream) {
  switch (p.kv.head_dim) {
    case 64:
      return launch_decode_for_dim<64>(p, workspace, num_sms, stream);
    case 96:
      return launch_decode_for_dim<96>(p, workspace, num_sms, stream);
    case 128:
      return launch_decode_for_dim<128>(p, workspace, num_sms, stream);
    case 256:
      return launch_decode_for_dim<256>(p, workspace, num_sms, stream);
  }
}

}  // namespace braid::kernels::internal

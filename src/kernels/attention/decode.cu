#include "kernels/attention/enqueue.h"
#include "kernels/attention/launch_decode.cuh"

namespace braid::kernels::internal {

void enqueue_attention_decode(const AttentionBf16Params& p, const RopeKvWriteBf16Params& rope,
                              const AttentionWorkspace& workspace, int32_t num_sms,
                              bool beside_previous, CudaStream stream) {
  switch (p.kv.head_dim) {
    case 64:
      return launch_decode_for_dim<64>(p, rope, workspace, num_sms, beside_previous, stream);
    case 96:
      return launch_decode_for_dim<96>(p, rope, workspace, num_sms, beside_previous, stream);
    case 128:
      return launch_decode_for_dim<128>(p, rope, workspace, num_sms, beside_previous, stream);
    case 256:
      return launch_decode_for_dim<256>(p, rope, workspace, num_sms, beside_previous, stream);
  }
}

}  // namespace braid::kernels::internal

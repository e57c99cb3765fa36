#include "kernels/elementwise/elementwise_bf16.h"

#include "base/check.h"
#include "kernels/elementwise/enqueue.h"

namespace braid::kernels {

void launch_rms_norm(const RmsNormBf16Params& p, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("rms_norm: " + why);
  if (p.num_tokens > 0) internal::enqueue_rms_norm(p, stream);
}

void launch_embedding(const EmbeddingBf16Params& p, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("embedding: " + why);
  if (p.num_tokens > 0) internal::enqueue_embedding(p, stream);
}

void launch_silu_mul(const SiluMulBf16Params& p, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("silu_mul: " + why);
  if (p.num_tokens > 0) internal::enqueue_silu_mul(p, stream);
}

}  // namespace braid::kernels

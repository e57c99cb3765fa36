#include "kernels/attention/attention_bf16.h"

#include "base/check.h"
#include "kernels/attention/enqueue.h"

namespace braid::kernels {

AttentionWorkspace attention_workspace(int32_t max_sequences, int32_t num_heads,
                                       int32_t num_kv_heads, int32_t head_dim, void* base,
                                       size_t* bytes) {
  AttentionWorkspace w = {
      .max_sequences = max_sequences, .num_heads = num_heads, .head_dim = head_dim};
  size_t at = 0;
  const auto take = [&]<class T>(T*& field, size_t count) {
    field = base == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<uint8_t*>(base) + at);
    at += (count * sizeof(T) + 255) / 256 * 256;
  };
  const size_t sequences = static_cast<size_t>(max_sequences),
               rows = sequences * static_cast<size_t>(num_heads) * kMaxSplits;
  take(w.counts, 1);
  take(w.splits_done, sequences * static_cast<size_t>(num_kv_heads));
  take(w.max_and_sum, rows * 2);
  take(w.partial_out, rows * static_cast<size_t>(head_dim));
  if (bytes != nullptr) *bytes = at;
  return w;
}

void launch_rope_kv_write(const RopeKvWriteBf16Params& p, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("rope_kv_write: " + why);
  if (p.num_tokens > 0) internal::enqueue_rope_kv_write(p, stream);
}

void launch_attention_decode(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                             int32_t num_sms, CudaStream stream) {
  if (auto why = why_unsupported(p, workspace); !why.empty())
    throw InternalError("attention_decode: " + why);
  BRAID_CHECK_GE(num_sms, 1);
  if (p.num_sequences > 0) internal::enqueue_attention_decode(p, workspace, num_sms, stream);
}

void launch_attention_prefill(const AttentionBf16Params& p, int32_t max_tokens, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("attention_prefill: " + why);
  BRAID_CHECK_GE(max_tokens, 0);
  if (p.num_sequences > 0 && max_tokens > 0)
    internal::enqueue_attention_prefill(p, max_tokens, stream);
}

}  // namespace braid::kernels

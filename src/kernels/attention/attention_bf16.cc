#include "kernels/attention/attention_bf16.h"

#include "base/check.h"
#include "kernels/attention/enqueue.h"

namespace braid::kernels {

AttentionWorkspace attention_workspace(int32_t max_sequences, int32_t num_heads, int32_t head_dim,
                                       void* base, size_t* bytes) {
  AttentionWorkspace w = {
      .max_sequences = max_sequences, .num_heads = num_heads, .head_dim = head_dim};
  size_t at = 0;
  const auto take = [&]<class T>(T*& field, size_t count) {
    field = base == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<uint8_t*>(base) + at);
    at += (count * sizeof(T) + 255) / 256 * 256;
  };
  const size_t rows =
      static_cast<size_t>(max_sequences) * static_cast<size_t>(num_heads) * kMaxSplits;
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
  if (p.num_sequences > 0)
    internal::enqueue_attention_decode(p, {}, workspace, num_sms, false, stream);
}

namespace {

void check_rope_decode(const RopeKvWriteBf16Params& rope, const AttentionBf16Params& p,
                       const AttentionWorkspace& workspace, int32_t num_sms) {
  if (auto why = why_unsupported(rope); !why.empty()) throw InternalError("rope: " + why);
  if (auto why = why_unsupported(p, workspace); !why.empty())
    throw InternalError("attention_decode: " + why);
  BRAID_CHECK_GE(num_sms, 1);
  BRAID_CHECK(rope.qkv == p.q && rope.qkv_stride == p.q_stride);
  BRAID_CHECK(rope.num_heads == p.num_heads && rope.kv == p.kv);
  BRAID_CHECK(!p.has_new_keys);
}

}  // namespace

void launch_rope_attention_decode(const RopeKvWriteBf16Params& rope, const AttentionBf16Params& p,
                                  const AttentionWorkspace& workspace, int32_t num_sms,
                                  CudaStream stream) {
  check_rope_decode(rope, p, workspace, num_sms);
  if (p.num_sequences > 0)
    internal::enqueue_attention_decode(p, rope, workspace, num_sms, false, stream);
}

void launch_attention_mixed(const AttentionBf16Params& prompts, int32_t max_tokens,
                            const RopeKvWriteBf16Params& rope, const AttentionBf16Params& replies,
                            const AttentionWorkspace& workspace, int32_t num_sms,
                            CudaStream stream) {
  if (auto why = why_unsupported(prompts); !why.empty())
    throw InternalError("attention_prefill: " + why);
  check_rope_decode(rope, replies, workspace, num_sms);
  BRAID_CHECK_GE(max_tokens, 0);
  int32_t taken = 0;
  if (prompts.num_sequences > 0 && max_tokens > 0)
    taken = internal::enqueue_attention_prefill(prompts, max_tokens, stream);
  if (replies.num_sequences == 0) return;
  // On too few SMs replies would take longer than behind the prompts on all of them.
  const int32_t left = num_sms - taken;
  internal::enqueue_attention_decode(replies, rope, workspace, left <= num_sms / 3 ? num_sms : left,
                                     taken > 0, stream);
}

void launch_attention_prefill(const AttentionBf16Params& p, int32_t max_tokens, CudaStream stream) {
  if (auto why = why_unsupported(p); !why.empty()) throw InternalError("attention_prefill: " + why);
  BRAID_CHECK_GE(max_tokens, 0);
  if (p.num_sequences > 0 && max_tokens > 0)
    internal::enqueue_attention_prefill(p, max_tokens, stream);
}

}  // namespace braid::kernels

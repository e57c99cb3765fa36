#pragma once

#include "kernels/attention/attention_bf16.h"

namespace braid::kernels::internal {

// The launches behind attention_bf16.h, of parameters that have been checked.
void enqueue_rope_kv_write(const RopeKvWriteBf16Params& p, CudaStream stream);
void enqueue_attention_decode(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                              int32_t num_sms, CudaStream stream);
void enqueue_attention_prefill(const AttentionBf16Params& p, int32_t max_tokens, CudaStream stream);
void enqueue_attention_prefill_e4m3(const AttentionBf16Params& p, int32_t max_tokens,
                                    CudaStream stream);

}  // namespace braid::kernels::internal

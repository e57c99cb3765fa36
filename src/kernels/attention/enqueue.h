#pragma once

#include "kernels/attention/attention_bf16.h"

namespace braid::kernels::internal {

// The launches behind attention_bf16.h, of parameters that have been checked.
void enqueue_rope_kv_write(const RopeKvWriteBf16Params& p, CudaStream stream);
// Where rope.qkv is null, q and the newest keys are ready. beside_previous: the previous kernel has
// nothing that this one waits for.
void enqueue_attention_decode(const AttentionBf16Params& p, const RopeKvWriteBf16Params& rope,
                              const AttentionWorkspace& workspace, int32_t num_sms,
                              bool beside_previous, CudaStream stream);
// Returns the SMs that it occupies from its beginning on, when it lets the next kernel start on the
// others; 0: it does so at its end.
int32_t enqueue_attention_prefill(const AttentionBf16Params& p, int32_t max_tokens,
                                  CudaStream stream);
void enqueue_attention_prefill_e4m3(const AttentionBf16Params& p, int32_t max_tokens,
                                    CudaStream stream);

}  // namespace braid::kernels::internal

#pragma once

#include "cpu/thread_pool.h"
#include "kernels/attention/attention.h"

namespace braid::cpu {

void rope_kv_write(ThreadPool& pool, const kernels::RopeKvWriteParams& p);
void attention(ThreadPool& pool, const kernels::AttentionParams& p);

}  // namespace braid::cpu

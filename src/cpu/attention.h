#pragma once

#include "base/rounding.h"
#include "cpu/thread_pool.h"
#include "kernels/attention/attention.h"

namespace braid::cpu {

void rope_kv_write(ThreadPool& pool, const kernels::RopeKvWriteParams& p, Rounding rounding);
void attention(ThreadPool& pool, const kernels::AttentionParams& p, Rounding rounding);

}  // namespace braid::cpu

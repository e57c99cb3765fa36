#pragma once

#include "base/rounding.h"
#include "cpu/thread_pool.h"
#include "kernels/moe/moe.h"
#include "kernels/moe/router.h"

namespace braid::cpu {

void moe(ThreadPool& pool, const kernels::MoeParams& p, Rounding rounding);
void router(ThreadPool& pool, const kernels::RouterParams& p);

}  // namespace braid::cpu

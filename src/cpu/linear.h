#pragma once

#include <span>

#include "base/rounding.h"
#include "cpu/thread_pool.h"
#include "kernels/linear/linear.h"

namespace braid::cpu {

// Independent linears in one or, where adapters are among them, two parallel passes.
void linear(ThreadPool& pool, std::span<const kernels::LinearParams> problems, Rounding rounding);

}  // namespace braid::cpu

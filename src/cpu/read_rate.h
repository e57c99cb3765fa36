#pragma once

#include "cpu/thread_pool.h"

namespace braid::cpu {

// Bytes a second the pool's threads read from memory together: the median of several passes of sums
// over a buffer of 512 MiB. The rate against which decode is measured.
double measure_read_rate(ThreadPool& pool);

}  // namespace braid::cpu

#pragma once

#include <cstddef>

#include "device/device.h"

namespace braid {

// Bytes a second at which the device reads `bytes` of memory once, by 16-byte loads from every SM:
// the median of several passes. More than the L2 cache, so that all of it comes from memory.
double measure_read_rate(const void* data, size_t bytes, const Stream& stream);

}  // namespace braid

#pragma once

#include <cstdint>
#include <vector>

#include "base/json_fwd.h"
#include "device/device.h"

namespace braid::apps {

// What the benchmarks of kernels share.

struct MeasuredDevice {
  DeviceFacts facts;
  double read_rate = 0;  // bytes a second
};

// The read rate over 4 GiB of random numbers.
MeasuredDevice measure_device();

Json to_json(const MeasuredDevice& device);

// Microseconds: median, 10th and 90th percentile.
struct Times {
  double us = 0, p10 = 0, p90 = 0;
};

// Replays graphs in turn: two rounds that do not count, then `rounds`. Times are of one of the
// num_parts equal parts that every graph has.
std::vector<Times> time_in_turn(const std::vector<Graph>& graphs, int32_t num_parts, int32_t rounds,
                                const Stream& stream);

}  // namespace braid::apps

#pragma once

#include <random>
#include <vector>

#include "base/bf16.h"
#include "device/device.h"
#include "tests/kernels/random_weights.h"

namespace braid::test {

inline std::vector<Bf16> random_bf16(std::mt19937& random, size_t n, float sigma = 1.0f) {
  std::vector<Bf16> values;
  for (const float x : random_floats(random, n, sigma)) values.push_back(to_bf16(x));
  return values;
}

// NaN, which whoever is to write all of it must leave none of.
inline DeviceBuffer poisoned_bf16(size_t elements) {
  DeviceBuffer buffer(elements * sizeof(Bf16));
  buffer.fill(0xff);
  return buffer;
}

}  // namespace braid::test

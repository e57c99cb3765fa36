#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "device/device.h"

// Skips the test where there is no GPU that can run our kernels; BRAID_REQUIRE_GPU=1 promises one,
// and then its absence fails.
#define BRAID_NEEDS_CUDA()                                                            \
  do {                                                                                \
    if (::braid::num_devices() > 0) break;                                            \
    const char* braid_promised_ = std::getenv("BRAID_REQUIRE_GPU");                   \
    if (braid_promised_ != nullptr && std::string_view(braid_promised_) == "1")       \
      FAIL() << "BRAID_REQUIRE_GPU=1, but there is no GPU of compute capability 9.0"; \
    GTEST_SKIP() << "no GPU of compute capability 9.0";                               \
  } while (false)

#pragma once

// clang-format off: chooses the instruction sets, so it stands before Highway.
#include "cpu/simd.h"
// clang-format on

#include <gtest/gtest.h>
#include <hwy/highway.h>

namespace braid::test {

// Runs body() once with each instruction set this machine has and the kernels are built for.
template <class Body>
void for_each_target(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace braid::test

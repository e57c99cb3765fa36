#pragma once

#include "base/rounding.h"

namespace braid::cpu {
class ThreadPool;
}

namespace braid::ops {

// Which implementation an op calls. kReference is the plain double loops: slow, for comparison.
enum class Backend { kCpu, kReference };

// Where an op runs. Passed down by the caller; ops keep nothing between calls.
struct Context {
  Backend backend = Backend::kCpu;
  cpu::ThreadPool* pool = nullptr;  // kCpu: not null, not owned
  Rounding rounding = Rounding::kNone;
};

}  // namespace braid::ops

#pragma once

#include <stdexcept>

namespace braid {

// A CUDA call failed: a dead device or a bug of ours. Names the kernel or call.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace braid

#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/common/launch.h"

namespace braid::kernels {

void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw CudaError(std::string(what) + ": " + cudaGetErrorString(error));
}

void internal::after_launch(cudaError_t error, const char* name, CudaStream stream) {
  check_cuda(error, name);
  static const bool sync = [] {
    const char* value = std::getenv("BRAID_CUDA_SYNC");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  if (!sync) return;
  // What is captured runs later.
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), name);
  if (status == cudaStreamCaptureStatusNone) check_cuda(cudaStreamSynchronize(stream), name);
}

}  // namespace braid::kernels

#include <cuda_runtime.h>

#include "base/cuda_error.h"
#include "tests/gpu/device_bytes.h"

namespace braid::test {

std::vector<uint8_t> device_bytes(const void* address, size_t count) {
  std::vector<uint8_t> bytes(count);
  if (cudaDeviceSynchronize() != cudaSuccess ||
      cudaMemcpy(bytes.data(), address, count, cudaMemcpyDeviceToHost) != cudaSuccess)
    throw CudaError("cannot read the device's memory");
  return bytes;
}

}  // namespace braid::test

#pragma once

#include <cuda_runtime.h>

#include "base/cuda_error.h"
#include "base/cuda_fwd.h"

namespace braid::kernels {

// Throws CudaError naming `what` unless error is cudaSuccess.
void check_cuda(cudaError_t error, const char* what);

struct LaunchShape {
  dim3 grid;
  dim3 cta;
  size_t shared_bytes = 0;
  int cluster = 1;  // CTAs of a cluster, neighbours along x; divides grid.x
  // Start while the previous kernel of the stream still runs; the kernel itself waits for it.
  bool overlap_previous = true;
};

// The one way kernels are launched. Throws CudaError naming the kernel if the launch is refused;
// under BRAID_CUDA_SYNC=1 also waits for it, unless it is captured, and throws what it died of.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            CudaStream stream, Arguments&&... arguments);

// Dynamic shared memory past 48 kB has to be asked for once per kernel.
template <class... Parameters>
void allow_shared_bytes(const char* name, void (*kernel)(Parameters...), size_t bytes) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)),
             name);
}

namespace internal {
void after_launch(cudaError_t error, const char* name, CudaStream stream);
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            CudaStream stream, Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned num_attributes = 0;
  if (shape.overlap_previous) {
    cudaLaunchAttribute& attribute = attributes[num_attributes++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[num_attributes++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {.x = static_cast<unsigned>(shape.cluster), .y = 1, .z = 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.cta;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = num_attributes;
  internal::after_launch(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...),
                         name, stream);
}

}  // namespace braid::kernels

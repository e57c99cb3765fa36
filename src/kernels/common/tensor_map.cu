#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <string>

#include "kernels/common/launch.h"
#include "kernels/common/tensor_map.h"

namespace braid::kernels {
namespace {

PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
  constexpr const char* kName = "cuTensorMapEncodeTiled";
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check_cuda(cudaGetDriverEntryPointByVersion(kName, &function, 12000, cudaEnableDefault, &found),
             kName);
  if (found != cudaDriverEntryPointSuccess)
    throw CudaError(std::string(kName) + ": the driver does not have it");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

CUtensorMap bf16_tensor_map(const void* base, int32_t columns, int32_t box_rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encode();
  CUtensorMap map;
  constexpr cuuint64_t kManyRows = cuuint64_t{1} << 31;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), kManyRows},
                   strides[1] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(base), sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw CudaError("cuTensorMapEncodeTiled: error " + std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace braid::kernels

#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/quantize_128.cuh"
#include "kernels/linear/enqueue.h"
#include "kernels/linear/layout.h"

namespace braid::kernels {
namespace {

constexpr int kWarps = 8;

// Warp by warp 128 columns of a row of the image, whose order is that of the adapters if there is
// one. Rows past the last are left as they are: what they give is not stored.
__global__ __launch_bounds__(32 * kWarps) void linear_quantize_x_kernel(
    const __grid_constant__ LinearBf16Params p, int depth, int tile_tokens) {
  const int unit = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = unit / depth, k = unit % depth, column = 128 * k + 4 * lane;
  const bool there = row < p.num_tokens;
  const int token = there && p.adapters != nullptr ? p.order.token_of_row[row] : row;
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (!there) return;
  uint2 four = make_uint2(0, 0);
  if (column < p.shape.in)
    four = *reinterpret_cast<const uint2*>(p.x + token * p.x_stride + column);
  const Quantized128 q = quantize_128(four);
  uint8_t* const rows =
      p.workspace.x_image + (int64_t{row / tile_tokens} * depth + k) * x_image_bytes(tile_tokens);
  const int in_tile = row % tile_tokens;
  *reinterpret_cast<__nv_fp8x4_e4m3*>(rows + swizzled(in_tile, 4 * lane)) = q.codes;
  if (lane == 0) reinterpret_cast<float*>(rows + tile_tokens * 128)[in_tile] = q.scale;
}

}  // namespace

namespace internal {

void enqueue_quantize_x(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream) {
  const int depth = num_depth_tiles(p.shape);
  const int64_t units = int64_t{p.num_tokens} * depth;
  launch("linear_quantize_x", linear_quantize_x_kernel,
         {.grid = dim3(static_cast<unsigned>((units + kWarps - 1) / kWarps)),
          .cta = dim3(32 * kWarps)},
         stream, p, depth, plan.tile_tokens);
}

}  // namespace internal
}  // namespace braid::kernels

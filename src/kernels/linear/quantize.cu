#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/launch.h"
#include "kernels/common/quantize_128.cuh"
#include "kernels/linear/enqueue.h"
#include "kernels/linear/layout.h"

namespace braid::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kGroups = kWarps * 4;

// Eight lanes take 128 columns of a row of the image, whose order is that of the adapters if there
// is one. Rows past the last are left as they are: what they give is not stored.
__global__ __launch_bounds__(32 * kWarps) void linear_quantize_x_kernel(
    const __grid_constant__ LinearBf16Params p, int depth, int tile_tokens, bool beside_shrink) {
  const int group = blockIdx.x * kGroups + threadIdx.x / 8, lane = threadIdx.x % 8;
  const int row = group / depth, k = group - row * depth, column = 128 * k + 16 * lane;
  const bool there = row < p.num_tokens;
  const int token = there && p.adapters != nullptr ? p.order.token_of_row[row] : row;
  let_next_kernel_start();
  // A shrink has waited for x, and for the last reader of the image, before it let this start.
  if (!beside_shrink) wait_for_previous_kernel();
  uint4 sixteen[2] = {};
  if (there && column < p.shape.in) {
    // Past L1: x may have been written since this SM last read it.
    const auto* const x = reinterpret_cast<const uint4*>(p.x + token * p.x_stride + column);
    sixteen[0] = __ldcg(x), sixteen[1] = __ldcg(x + 1);
  }
  const Quantized16 q = quantize_128(sixteen);
  if (there) {
    uint8_t* const rows =
        p.workspace.x_image + (int64_t{row / tile_tokens} * depth + k) * x_image_bytes(tile_tokens);
    const int in_tile = row % tile_tokens;
    *reinterpret_cast<uint4*>(rows + swizzled(in_tile, 16 * lane)) = q.codes;
    if (lane == 0) reinterpret_cast<float*>(rows + tile_tokens * 128)[in_tile] = q.scale;
  }
  // The kernel behind waits for this one alone, and needs the shrink's u.
  if (beside_shrink && blockIdx.x == 0) wait_for_previous_kernel();
}

}  // namespace

namespace internal {

void enqueue_quantize_x(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream) {
  const int depth = num_depth_tiles(p.shape);
  const int64_t groups = int64_t{p.num_tokens} * depth;
  launch("linear_quantize_x", linear_quantize_x_kernel,
         {.grid = dim3(static_cast<unsigned>((groups + kGroups - 1) / kGroups)),
          .cta = dim3(32 * kWarps)},
         stream, p, depth, image_tile_tokens(plan), shrinks_apart(p, plan));
}

}  // namespace internal
}  // namespace braid::kernels

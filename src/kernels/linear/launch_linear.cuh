#pragma once

#include <algorithm>

#include "kernels/common/launch.h"
#include "kernels/linear/sm90_linear_kernel.cuh"

namespace braid::kernels {

// CTAs of the shrink at most. In a cluster there are few tokens, and the others are to start at
// once as well.
inline constexpr int kMaxShrinkCtas = 264, kMaxShrinkCtasInClusters = 96;

template <WeightFormat kFormat, int kTokens>
void launch_linear_tile(const LinearBf16Params& p, const LinearPlan& plan, CudaStream stream) {
  using Config = LinearConfig<kFormat, kTokens>;
  constexpr const char* kName = "linear";
  static const bool allowed = [] {
    allow_shared_bytes(kName, linear_kernel<Config>, Config::kSharedBytes);
    return true;
  }();
  (void)allowed;
  const int parts = linear_parts(p.shape);
  LinearGrid grid = {.num_parts = parts,
                     .cluster = plan.in_cluster ? parts : 1,
                     .depth = num_depth_tiles(p.shape),
                     .num_token_tiles = (p.num_tokens + kTokens - 1) / kTokens};
  grid.warps_across_rows = 1;
  while (grid.warps_across_rows < rows_of_share(grid, 0)) grid.warps_across_rows *= 2;
  // Sums of many tokens take the ring's place; not those to which a CTA adds part by part.
  constexpr int kAllBytes = Config::kSharedBytes - static_cast<int>(sizeof(LinearShared<Config>));
  static_assert(kAllBytes >= Config::kShrinkSumBytes);
  grid.sums_in_ring = kTokens >= kQuantizedApartTokens && grid.cluster == parts;
  const int sum_bytes = rows_of_share(grid, 0) * grid.cluster * Config::kColumnTiles * 512,
            behind_ring = grid.sums_in_ring ? 0 : sum_bytes;
  // A part may be one tile longer than another.
  const int num_tiles = (grid.depth + grid.cluster - 1) / grid.cluster;
  const auto fits = [&] {
    grid.num_x_tiles = Config::kQuantizes ? num_tiles : grid.num_stages;
    return grid.num_stages * kWeightTileBytes + grid.num_x_tiles * Config::kXStageBytes +
               behind_ring <=
           kAllBytes;
  };
  grid.num_stages = std::min(num_tiles, Config::kMaxStages);
  while (!fits()) --grid.num_stages;
  int shared_bytes = std::max(
      grid.num_stages * kWeightTileBytes + grid.num_x_tiles * Config::kXStageBytes + behind_ring,
      sum_bytes);
  if (p.adapters != nullptr && !shrinks_apart(p, plan)) {
    shared_bytes = std::max(shared_bytes, Config::kShrinkSumBytes);
    const int units = p.order.max_runs * kMostShrinkGroups;
    grid.num_shrink_ctas =
        grid.cluster == 1 ? std::min(units, kMaxShrinkCtas)
                          : std::min(units, kMaxShrinkCtasInClusters / grid.cluster) * grid.cluster;
  }
  launch(kName, linear_kernel<Config>,
         {.grid = dim3(static_cast<unsigned>(
              grid.num_shrink_ctas + num_row_tiles(p.shape) * grid.num_token_tiles * grid.cluster)),
          .cta = dim3(Config::kThreads),
          .shared_bytes = sizeof(LinearShared<Config>) + static_cast<size_t>(shared_bytes),
          .cluster = grid.cluster},
         stream, p, grid);
}

}  // namespace braid::kernels

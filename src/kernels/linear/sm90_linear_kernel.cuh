#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/linear/sm90_consumer.cuh"
#include "kernels/linear/sm90_loader.cuh"
#include "kernels/linear/sm90_shrink.cuh"

namespace braid::kernels {

// Tokens and runs of the tile's rows. One thread a row.
template <class Config>
__device__ __forceinline__ void list_rows(const LinearBf16Params& p, const LinearTile& tile,
                                          LinearShared<Config>& shared, int i) {
  const int row0 = tile.token_tile * Config::kTokens, row = row0 + i;
  const bool there = row < p.num_tokens;
  if (p.adapters == nullptr) {
    shared.token[i] = there ? row : -1;
    return;
  }
  const auto run_of = [&](int r) { return r < p.num_tokens ? p.order.run_of_row[r] : -1; };
  const int run = run_of(row), first = run_of(row0);
  const int previous = i > 0 ? run_of(row - 1) : -1,
            next = i + 1 < Config::kTokens ? run_of(row + 1) : -1;
  shared.token[i] = there ? p.order.token_of_row[row] : -1;
  shared.run[i] = run < 0 ? -1 : run - first;
  if (i == 0 && run < 0) shared.num_runs = 0;
  if (run < 0) return;
  if (next < 0) shared.num_runs = run - first + 1;
  if (run == previous) return;
  LinearTileRun& to = shared.runs[run - first];
  to.run = p.order.runs[run];
  to.adapter = p.adapters[to.run.slot];
  if (tile.rank > 0) return;
  // B of these rows.
  int begin = 0;
#pragma unroll
  for (int s = 0; s < kMaxLinearSlices; ++s) {
    const int end = begin + p.shape.slice_out[s], rank = to.adapter.rank[s];
    const int from = max(tile.row, begin), num_rows = min(tile.row + 128, end) - from;
    if (num_rows > 0 && rank > 0) {
      bulk_prefetch_l2(to.adapter.expand[s] + int64_t{from - begin} * (2 * rank),
                       static_cast<uint32_t>(expand_bytes(num_rows, rank)));
    }
    begin = end;
  }
}

// Tells the CTA the tag of this launch's u. The last CTA that has read it counts the launch. By one
// thread of every CTA that has something to do.
template <class Config>
__device__ __forceinline__ void tell_tag(const LinearBf16Params& p, const LinearGrid& grid,
                                         LinearShared<Config>& shared) {
  const LinearWorkspace& workspace = p.workspace;
  const int idle = grid.num_shrink_ctas - busy_shrink_ctas(p, grid);
  const int block = static_cast<int>(blockIdx.x);
  if (block < grid.num_shrink_ctas && block >= grid.num_shrink_ctas - idle) return;
  wait_for_previous_kernel();
  shared.tag = __ldcg(workspace.launches) + 1;
  mbarrier_arrive(&shared.tag_there);
  if (atomicAdd(workspace.ctas_done, 1) != static_cast<int>(gridDim.x) - idle - 1) return;
  *workspace.ctas_done = 0;
  *workspace.launches = shared.tag;
}

template <class Config>
__global__ __launch_bounds__(Config::kThreads, Config::kCtasPerSm) void linear_kernel(
    const __grid_constant__ LinearBf16Params p, const __grid_constant__ LinearGrid grid) {
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<LinearShared<Config>*>(dynamic_shared);

  // --- who am I ---
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  constexpr int kConsumerWarps = Config::kConsumers / 32;
  const bool shrinks = static_cast<int>(blockIdx.x) < grid.num_shrink_ctas;
  LinearTile tile = {};
  {
    const int i = static_cast<int>(blockIdx.x) - grid.num_shrink_ctas, j = i / grid.cluster;
    tile.rank = i - j * grid.cluster;
    const int row_tile = j / grid.num_token_tiles;
    tile.token_tile = j - row_tile * grid.num_token_tiles;
    tile.num_columns =
        (min(Config::kTokens, p.num_tokens - tile.token_tile * Config::kTokens) + 7) / 8;
    tile.row = 128 * row_tile;
    tile.weights = p.weights + row_tile * row_tile_bytes(p.shape);
    tile.first_k = part_begin(grid.depth, tile.rank, grid.cluster);
    tile.end_k = part_begin(grid.depth, tile.rank + 1, grid.cluster);
  }

  // --- barriers, lists, and what does not depend on the previous kernel ---
  LinearLoader<Config> loader(p, grid, shared, tile, threadIdx.x - Config::kConsumers);
  if (threadIdx.x == Config::kConsumers) {
    for (int i = 0; i < grid.num_stages; ++i) {
      mbarrier_init(&shared.full[i], Config::kFullArrivals);
      mbarrier_init(&shared.empty[i], kConsumerWarps);
    }
    mbarrier_init(&shared.sums_there, 1);
    mbarrier_init(&shared.tag_there, 1);
    mbarrier_init_fence();
    if (!shrinks) {
      loader.first_weights();
      mbarrier_arrive_expect(&shared.sums_there, rows_of_share(grid, tile.rank) * tile.num_columns *
                                                     grid.cluster * 512);
    }
  }
  if (threadIdx.x < Config::kTokens && !shrinks) list_rows(p, tile, shared, threadIdx.x);
  __syncthreads();
  if (grid.cluster > 1) cluster_barrier_relaxed();  // barriers may be reached from other CTAs
  let_next_kernel_start();

  // --- x ---
  LinearConsumer<Config> consumer(p, grid, shared, tile, warp, lane);
  if (!shrinks) {
    if (warp < kConsumerWarps) consumer.prefetch();
    wait_for_previous_kernel();
    if constexpr (Config::kQuantizes) {
      quantize_x(p, grid, shared, tile, warp, lane);
      __syncthreads();
    }
  }

  // --- loader ---
  if (warp >= kConsumerWarps) {
    give_registers<Config::kLoaderRegisters>();
    if (!shrinks) loader.run();
    if (p.adapters != nullptr && threadIdx.x == Config::kThreads - 1) tell_tag(p, grid, shared);
    return;  // barriers count those who are left
  }

  // --- consumers ---
  take_registers<Config::kConsumerRegisters>();
  if (shrinks) {
    LinearShrink<Config>(p, grid, shared, warp, lane).run();
  } else {
    consumer.run();
  }
}

}  // namespace braid::kernels

#pragma once

// The two grouped GEMMs of the MoE layer: weights times tokens by wgmma, LoRA inside.
//
// A CTA is one consumer warpgroup and one producer warp; two CTAs share an SM, so that one's
// epilogue hides under the other's main loop. Grids are persistent: a CTA's first unit of 128 rows
// of weights for one token tile goes by its number, then each takes the next that nobody has begun.

#include <cstdint>

#include "kernels/moe_gemm/sm90_consumer.cuh"
#include "kernels/moe_gemm/sm90_producer.cuh"

namespace braid::kernels {

// What of MoePlan concerns the kernels.
struct GemmPlan {
  int32_t num_guessed_experts;
  int32_t num_prefetched_experts;
  bool small_batch;
};

// gate_up of batches that moe_routing has sorted: a guess, then what the lists say.
template <class Config>
__device__ void produce_gate_up(const MoeLayerParams& p, Producer<Config>& producer,
                                const GemmPlan& plan, int lane) {
  const MoeWorkspace& w = p.workspace;
  const int cta = blockIdx.x, num_ctas = gridDim.x;
  const int tiles_per_expert = p.sizes.moe_intermediate_size / 64;
  const int num_guesses = plan.num_guessed_experts * tiles_per_expert;
  const int expert = cta / tiles_per_expert, index = cta % tiles_per_expert;
  if (num_guesses > 0 || plan.num_prefetched_experts > 0) {
    // Not before experts are being chosen: memory is busy for the previous kernels until then.
    while (load_acquire(&w.counts->arrived) == 0) __nanosleep(200);
    if (cta < num_guesses) producer.guess(expert, index);
  }
  if (lane == 0) {
    prefetch_experts<Config::kFormat>(p.sizes, p.weights, plan.num_guessed_experts,
                                      plan.num_prefetched_experts);
  }
  wait_for_previous_kernel();
  let_next_kernel_start();
  fence_proxy_async_global();

  // What it takes to begin, asked for at once: entries that are not there are not used. CTAs with
  // less to do take the first shrink items.
  int next_item = num_ctas - 1 - cta;
  const int4 counts = __ldcg(reinterpret_cast<const int4*>(w.counts));
  MoeTokenTile tile = {};
  if (num_guesses == 0 || cta < num_guesses)
    tile = load_entry((num_guesses > 0 ? w.guessed_tiles : w.other_tiles) + expert);
  MoeShrinkItem item;
  if (Config::kLora && next_item < w.max_shrink_items)
    item = load_entry(w.shrink_items + next_item);
  const int num_units = counts.y * tiles_per_expert;
  const int num_items = Config::kLora ? counts.z : 0;
  const int num_all_items = Config::kLora ? num_items + counts.w : 0;
  const auto item_at = [&](int i) {
    return w.shrink_items + (i < num_items ? i : w.max_shrink_items - 1 - (i - num_items));
  };
  if (num_items <= next_item && next_item < num_all_items) item = load_entry(item_at(next_item));
  // Items up to number `end`; an entry is asked for one ahead.
  const auto shrink_items = [&](int end) {
    if constexpr (Config::kLora) {
#pragma unroll 1
      while (next_item < end) {
        const MoeShrinkItem current = item;
        next_item += num_ctas;
        if (next_item < num_all_items) item = load_entry(item_at(next_item));
        producer.shrink(current, 0);
      }
    }
  };
  const auto weights = [&](int unit) {
    producer.weight_tile(load_entry(w.other_tiles + unit / tiles_per_expert),
                         unit % tiles_per_expert);
  };
  int num_first = 0;  // units that belong to CTAs by their number
  if (num_guesses > 0) {
    if (tile.num_tokens > 0) {
      // All tiles that were guessed wait for the first items alone: the others come behind.
      producer.keep_guess(tile, index, (num_items - next_item + num_ctas - 1) / num_ctas);
      shrink_items(num_items);
      producer.weight_tile(tile, index);
      shrink_items(num_all_items);
    } else {
      producer.claim();
      producer.drop_guess();
      shrink_items(num_all_items);
    }
  } else {
    num_first = num_ctas;
    shrink_items(num_all_items);
    if (cta < num_units) producer.weight_tile(tile, index);
  }
  if (num_guesses > 0 || cta < num_units) {
    for (int unit; (unit = num_first + producer.claimed()) < num_units;) weights(unit);
  }
  producer.finish();
}

// down. Its lists are there before gate_up has finished, and only h and v are waited for: gate_up
// lets this kernel start when moe_routing is complete, or counts what its own CTAs have listed.
template <class Config>
__device__ void produce_down(const MoeLayerParams& p, Producer<Config>& producer,
                             bool small_batch) {
  const MoeWorkspace& w = p.workspace;
  const int tiles_per_expert = p.sizes.hidden_size / 128, num_ctas = gridDim.x;
  int num_tiles;
  if (small_batch) {
    int listed;
    do {
      listed = load_acquire(&w.counts->listed);
      num_tiles = listed / kListedUnit - 1;
    } while (listed % kListedUnit != num_tiles);
  } else {
    num_tiles = __ldcg(&w.counts->num_tiles);
  }
#pragma unroll 1
  for (int unit = blockIdx.x; unit < num_tiles * tiles_per_expert;
       unit = num_ctas + producer.claimed()) {
    producer.weight_tile(load_entry(w.tiles + unit / tiles_per_expert), unit % tiles_per_expert);
  }
  producer.finish();
}

// gate_up of a small batch.
template <class Config>
__device__ void produce_small_batch(const MoeLayerParams& p, const SmallBatch& batch,
                                    Producer<Config>& producer, int lane) {
  const int num_ctas = gridDim.x, tiles_per_expert = p.sizes.moe_intermediate_size / 64;
  if constexpr (Config::kLora) {
#pragma unroll 1
    for (int i = num_ctas - 1 - blockIdx.x; i < batch.num_items; i += num_ctas) {
      int first_column;
      const MoeShrinkItem item = small_batch_item(p, batch, i, lane, &first_column);
      producer.shrink(item, first_column);
    }
  }
#pragma unroll 1
  for (int unit = blockIdx.x; unit < batch.num_tiles * tiles_per_expert;
       unit = num_ctas + producer.claimed()) {
    producer.weight_tile(small_batch_tile(batch, unit / tiles_per_expert), unit % tiles_per_expert);
  }
  producer.finish();
}

template <class Config>
__device__ void clear_empty_columns(const MoeLayerParams& p, GemmShared<Config>& shared) {
  const int depth = p.sizes.hidden_size / 128;
  uint8_t* const image = shared.x_image(p.sizes.hidden_size);
  for (int i = threadIdx.x; i < depth * Config::kTokens * 8; i += Config::kThreads) {
    const int column = i / 8 % Config::kTokens;
    if (column >= p.num_tokens) reinterpret_cast<uint4*>(image)[i] = make_uint4(0, 0, 0, 0);
  }
  for (int i = threadIdx.x; i < depth * Config::kTokens; i += Config::kThreads)
    if (i % Config::kTokens >= p.num_tokens) shared.x_scale[i] = 0.0f;
}

template <class Config>
__global__ __launch_bounds__(Config::kThreads, Config::kCtasPerSm) void moe_gemm_kernel(
    const __grid_constant__ MoeLayerParams p, const GemmPlan plan) {
  // --- who am I; shared memory and barriers ---
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<GemmShared<Config>*>(dynamic_shared);
  const int warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const bool produces = warp == Config::kConsumers / 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Config::kStages; ++i) {
      mbarrier_init(&shared.full[i], 1);
      mbarrier_init(&shared.empty[i], Config::kConsumers / 32);
    }
    mbarrier_init_fence();
  }
  if constexpr (Config::kSmallBatch) {
    order_columns(p, shared.batch());
    clear_empty_columns(p, shared);
  }
  __syncthreads();
  if constexpr (Config::kSmallBatch) {
    wait_for_previous_kernel();
    let_next_kernel_start();
    Producer<Config> producer(p, shared, lane);
    if (produces) producer.small_batch_x();
    route_small_batch(p, shared.batch());
    if (produces) {
      produce_small_batch(p, shared.batch(), producer, lane);
    } else {
      Consumer<Config> consumer(p, shared, warp, lane);
      consumer.quantize_x();
      // While the first weights come: telling that it is done waits for memory.
      if (warp == 0) list_small_batch(p, shared.batch(), lane);
      consumer.run();
    }
  } else if (produces) {
    Producer<Config> producer(p, shared, lane);
    if constexpr (Config::kGateUp) {
      produce_gate_up(p, producer, plan, lane);
    } else {
      produce_down(p, producer, plan.small_batch);
    }
  } else {
    Consumer<Config>(p, shared, warp, lane).run();
  }
}

}  // namespace braid::kernels

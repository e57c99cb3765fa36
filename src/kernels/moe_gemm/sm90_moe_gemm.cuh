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
  bool tells_tiles;  // gate_up tells of each tile when its h is there
};

// gate_up of batches that moe_routing has sorted: a guess, then what the lists say.
template <class Config>
__device__ void produce_gate_up(const MoeLayerParams& p, Producer<Config>& producer,
                                const GemmPlan& plan, int lane) {
  const MoeWorkspace& w = p.workspace;
  const int cta = blockIdx.x, num_ctas = gridDim.x;
  const int tiles_per_expert = p.sizes.moe_intermediate_size / 64;
  const int num_guesses = plan.num_guessed_experts * tiles_per_expert;
  const int expert = cta / tiles_per_expert;
  int index = cta % tiles_per_expert;
  if (num_guesses > 0 || plan.num_prefetched_experts > 0) {
    // Not before experts are being chosen: memory is busy for the previous kernels until then.
    while (load_acquire(&w.counts->arrived) == 0) __nanosleep(200);
    if (cta < num_guesses) {
      // The first CTAs of an expert do its shrinks, and leave room for one.
      const bool shrinks = Config::kLora && index < kShrinkParts;
      producer.guess(expert, index, shrinks ? Config::kShrinkBytes : 0);
    }
  }
  if (lane == 0) {
    prefetch_experts<Config::kFormat>(p.sizes, p.weights, plan.num_guessed_experts,
                                      plan.num_prefetched_experts);
  }
  // Not earlier: seeing what another CTA has counted empties L1.
  if constexpr (Config::kLora) producer.prefetch_adapters();
  wait_for_previous_kernel();
  let_next_kernel_start();
  fence_proxy_async_global();

  // What it takes to begin, asked for at once: an entry that is not there is not used.
  const int4 counts = __ldcg(reinterpret_cast<const int4*>(w.counts));
  MoeTokenTile tile = {};
  if (num_guesses == 0 || cta < num_guesses)
    tile = load_entry((num_guesses > 0 ? w.guessed_tiles : w.other_tiles) + expert);
  // Bits: guessed experts that are hit.
  uint64_t hit = 0;
  if constexpr (Config::kLora) {
    const auto is_hit = [&](int e) {
      return e < plan.num_guessed_experts && __ldcg(&w.guessed_tiles[e].num_tokens) > 0;
    };
    const bool low = is_hit(lane), high = is_hit(32 + lane);
    hit = __ballot_sync(kAllLanes, low) | uint64_t{__ballot_sync(kAllLanes, high)} << 32;
  }
  const int num_units = counts.y * tiles_per_expert;
  producer.set_units(num_units, num_guesses > 0 ? 0 : num_ctas);
  // A CTA's first tile is one that was guessed right or, without a guess, the one of its number.
  const bool guesses = num_guesses > 0, guessed_right = guesses && tile.num_tokens > 0;
  bool has_tile = guesses ? guessed_right : cta < num_units;
  if (guesses && !guessed_right) {
    producer.claim();
    producer.drop_guess();
  }
  if constexpr (Config::kShrinksInTile) {
    // Weights are under way while the shrinks that come before its end are looked up.
    if (!guesses && has_tile) producer.guess(tile.expert, index, Config::kShrinkBytes);
  }
  if (has_tile) producer.keep_guess(tile, index);
  // Shrinks that a guessed tile may wait for: where experts share A those of all tokens, otherwise
  // its own. Each CTA has done its share when it first waits.
  if constexpr (Config::kLora) {
#pragma unroll 1
    for (int i = num_ctas - 1 - cta; i < counts.z; i += num_ctas) {
      const MoeShrinkItem item = load_entry(w.shrink_items + i);
      const int n = min(lane, item.num_tokens - 1);
      producer.shrink(item, __ldcg(w.token_of_row + item.first_row + n));
    }
    if (guessed_right) producer.shrink_runs(tile, index, tiles_per_expert, 1);
  }
  // Those of other tiles, cut where there are fewer of them than CTAs. CTAs whose guess was wrong
  // do the tiles that they begin with; all others are for those that have a guessed tile first.
  const auto shrink_others = [&] {
    if constexpr (Config::kLora) {
      const int most = num_ctas / max(1, counts.x);
      const int parts = most >= 4 ? 1 : most >= 2 ? 2 : kShrinkParts, pieces = kShrinkParts / parts;
      const int num_others = counts.y * pieces;
      const uint64_t before = expert < 64 ? (uint64_t{1} << expert) - 1 : ~uint64_t{0};
      const int num_right = __popcll(hit) * tiles_per_expert;
      const int num_wrong = guesses ? num_ctas - num_right : 0;
      const int right_before =
          __popcll(hit & before) * tiles_per_expert + (guessed_right ? cta % tiles_per_expert : 0);
      const int wrong_before = cta - right_before;
      const int num_urgent =
          min(num_others, (num_wrong + tiles_per_expert - 1) / tiles_per_expert * pieces);
      const int behind = !guesses        ? num_ctas - 1 - cta
                         : guessed_right ? num_urgent + right_before
                                         : num_urgent + num_right + wrong_before;
      const bool is_urgent = guesses && !guessed_right && wrong_before < num_urgent;
#pragma unroll 1
      for (int i = is_urgent ? wrong_before : behind; i < num_others;) {
        producer.shrink_runs(load_entry(w.other_tiles + i / pieces), i % pieces, pieces, parts);
        if (i >= num_urgent) {
          i += num_ctas;
        } else if ((i += num_wrong) >= num_urgent) {
          i = behind;
        }
      }
    }
  };
  // They come behind a tile that was guessed, and before any other.
  const int others_at = guessed_right ? 1 : 0;
#pragma unroll 1
  for (int round = 0;; ++round) {
    if (round == others_at) shrink_others();
    if (has_tile) {
      producer.weight_tile(tile, index);
    } else if (round > 0) {
      break;
    }
    has_tile = producer.next_unit(&tile, &index);
  }
  producer.finish();
}

// down. Its lists are there before gate_up has finished, and only a tile's h and v are waited for:
// gate_up lets this kernel start when moe_routing is complete, or counts what its own CTAs have
// listed.
template <class Config>
__device__ void produce_down(const MoeLayerParams& p, Producer<Config>& producer,
                             bool small_batch) {
  const MoeWorkspace& w = p.workspace;
  const int tiles_per_expert = p.sizes.hidden_size / 128, num_ctas = gridDim.x;
  if constexpr (Config::kLora) producer.prefetch_adapters();
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
  producer.set_units(num_tiles * tiles_per_expert, num_ctas);
  const int first = blockIdx.x;
  if (first < num_tiles * tiles_per_expert) {
    MoeTokenTile tile = load_entry(w.tiles + first / tiles_per_expert);
    int index = first % tiles_per_expert;
#pragma unroll 1
    do {
      producer.weight_tile(tile, index);
    } while (producer.next_unit(&tile, &index));
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
      const int n = min(lane, item.num_tokens - 1);
      producer.shrink(item, batch.token_of_column[first_column + n]);
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
    Producer<Config> producer(p, shared, lane, plan.tells_tiles);
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
    Producer<Config> producer(p, shared, lane, plan.tells_tiles);
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

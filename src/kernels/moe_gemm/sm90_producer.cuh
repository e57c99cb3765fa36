#pragma once

// The warp that keeps the ring full.

#include <cstdint>

#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/counter.cuh"
#include "kernels/common/elect.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/moe_gemm/sm90_ring.cuh"

namespace braid::kernels {

// Columns of a part of A that one stage of a shrink item takes, with as much of x behind them: as
// few stages as there can be, of nearly one size, in steps of 16.
template <class Config>
__device__ __forceinline__ int shrink_depth(int part_columns, int num_slab_rows, int num_tokens) {
  const int tokens = (num_tokens + 7) / 8 * 8;
  const int most = (Config::kShrinkBytes - 16 * tokens) / (2 * (num_slab_rows + tokens)) / 16 * 16;
  const int num_stages = (part_columns + most - 1) / most;
  return (part_columns + 16 * num_stages - 1) / (16 * num_stages) * 16;
}
// A token's x in a stage; the odd multiple of 16 bytes keeps ldmatrix free of bank conflicts.
__device__ __forceinline__ int shrink_x_stride(int depth) { return 2 * depth + 16; }

// Rows of A of gate and up, or of the one of both.
__device__ __forceinline__ int num_shrink_rows(const MoeAdapterSlot& slot) {
  return slot.one_a ? slot.rank_gate_up : 2 * slot.rank_gate_up;
}

__device__ __forceinline__ void prefetch_l1(const void* at) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(at));
}

// A list entry of 16-byte parts, past L1: an earlier kernel may have filled it while this one ran.
template <class T>
__device__ __forceinline__ T load_entry(const T* at) {
  static_assert(sizeof(T) % sizeof(int4) == 0);
  T entry;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / sizeof(int4)); ++i)
    reinterpret_cast<int4*>(&entry)[i] = __ldcg(reinterpret_cast<const int4*>(at) + i);
  return entry;
}

__device__ __forceinline__ float* u_of(const MoeLayerParams& p, int step, int row) {
  return p.workspace.u + (int64_t{step} * p.workspace.num_u_rows + row) * kURowFloats;
}
__device__ __forceinline__ float* v_of(const MoeLayerParams& p, int step, int row) {
  return p.workspace.v +
         (int64_t{step} * p.workspace.max_rows + row) * v_row_floats(p.sizes.moe_intermediate_size);
}

template <class Config>
class Producer {
 public:
  __device__ Producer(const MoeLayerParams& p, GemmShared<Config>& shared, int lane,
                      bool tells_tiles)
      : tells_tiles_(tells_tiles),
        p_(p),
        shared_(shared),
        ring_(shared, shared.ring_bytes(p.sizes.hidden_size), lane),
        lane_(lane) {}

  // The tokens of a small batch, in the order of columns.
  __device__ void small_batch_x() {
    const int bytes = p_.sizes.hidden_size * static_cast<int>(sizeof(Bf16));
    ring_.open(p_.num_tokens * bytes);
    if (lane_ == 0) mbarrier_arrive_expect(ring_.full(), p_.num_tokens * bytes);
    __syncwarp();
    if (lane_ < p_.num_tokens) {
      bulk_copy(ring_.data() + lane_ * bytes,
                p_.x + int64_t{shared_.batch().token_of_column[lane_]} * p_.sizes.hidden_size,
                bytes, ring_.full(), CachePolicy::kEvictLast);
    }
    __syncwarp();
  }

  // Begins to read a weight tile, of an expert that may have no tokens: as much as the ring takes,
  // but for the last stage and `room` bytes.
  __device__ void guess(int expert, int index, int room) {
    const uint8_t* weights = weights_of(expert, index);
    const int bytes = Config::stage_bytes(Config::kTokens);
    while (num_guessed_ < num_stages() - 1 && ring_.has_room(bytes + room)) {
      ring_.open(bytes);
      copy_weights(weights, num_guessed_++);
      __syncwarp();
    }
  }
  // It has none. Comes before anything else that needs the ring.
  __device__ void drop_guess() {
    if (num_guessed_ == 0) return;
    if (lane_ == 0) {
      shared_.headers[0].kind = StageKind::kSkip;
      shared_.headers[0].num_stages = num_guessed_;
    }
    __syncwarp();
    if (lane_ < num_guessed_) mbarrier_arrive(&shared_.full[lane_]);
    num_guessed_ = 0;
    __syncwarp();
  }
  // It has these; shrink items may come behind what has been read.
  __device__ void keep_guess(const MoeTokenTile& tile, int index) {
    if (num_guessed_ == 0) return;
    const ActivationImage image = x_image_of(tile);
    if (lane_ == 0) {
      begin_tile(shared_.headers[0], tile, index);
      shared_.headers[0].shrink_at = num_guessed_;
    }
    __syncwarp();
    if (lane_ < num_guessed_) {
      const int size = (Config::stage_bytes(Config::kTokens) + 1023) / 1024 * 1024;
      const Copy x = activations(p_.workspace.x_image, image, tile.num_tokens, lane_);
      mbarrier_arrive_expect(&shared_.full[lane_], x.bytes * x.count);
      x.issue_all(shared_.ring + lane_ * size, &shared_.full[lane_]);
    }
    __syncwarp();
  }

  // The adapters come close before they are needed in a hurry: those of as many tokens as there is
  // time for.
  __device__ void prefetch_adapters() const {
#pragma unroll 1
    for (int t = lane_; t < min(p_.num_tokens, 128); t += 32) {
      const int slot = p_.adapter_slot_of_token[t];
      if (slot == kNoAdapter) continue;
      prefetch_l1(p_.adapters + slot);
      prefetch_l1(reinterpret_cast<const uint8_t*>(p_.adapters + slot + 1) - 1);
    }
  }

  // Rows of A times the tokens of an item; lane n has token n.
  __device__ void shrink(const MoeShrinkItem& item, int token) {
    const int hidden = p_.sizes.hidden_size, part_columns = hidden / kShrinkParts;
    const int rows = slab_rows(item.one_a ? item.rank : 2 * item.rank, item.slab);
    const int depth = shrink_depth<Config>(part_columns, rows, item.num_tokens);
    const Bf16* const x = p_.x + int64_t{token} * hidden;
#pragma unroll 1
    for (int part = 0; part < item.num_parts; ++part) {
      const int begin = (item.first_part + part) * part_columns;
#pragma unroll 1
      for (int k = 0; k < part_columns; k += depth) {
        const int columns = min(depth, part_columns - k);
        // Rows of 8 tokens, as ldmatrix reads them, whether they are there or not.
        ring_.open(2 * depth * rows + (item.num_tokens + 7) / 8 * 8 * shrink_x_stride(depth));
        if (lane_ == 0) {
          if (part == 0 && k == 0) {
            StageHeader& header = ring_.header();
            header.kind = StageKind::kShrink;
            header.first_row = item.first_row;
            header.num_tokens = item.num_tokens;
            header.index = item.slab;
            header.depth = depth;
            header.num_slab_rows = rows;
            header.rank = item.rank;
            header.one_a = item.one_a;
            header.ready_index = item.ready_index;
            header.first_part = item.first_part;
            header.num_parts = item.num_parts;
            header.scaling_gate = item.scaling_gate;
            header.scaling_up = item.scaling_up;
          }
          mbarrier_arrive_expect(ring_.full(), 2 * columns * (rows + item.num_tokens));
          bulk_copy(ring_.data(), item.factor + int64_t{begin + k} * rows * 2, 2 * columns * rows,
                    ring_.full(), CachePolicy::kEvictFirst);
        }
        __syncwarp();
        uint8_t* const x_begin = ring_.data() + 2 * depth * rows;
        if (lane_ < item.num_tokens) {
          bulk_copy(x_begin + lane_ * shrink_x_stride(depth), x + begin + k, 2 * columns,
                    ring_.full(), CachePolicy::kEvictLast);
        }
      }
    }
  }

  // Of the shrinks of a tile's runs, each cut into pieces of some parts of H, number `first` and
  // every `step`-th from there on. Where experts share A, others do them.
  __device__ void shrink_runs(const MoeTokenTile& tile, int first, int step, int parts) {
    load_rows(tile);
    find_runs();
    const int pieces = kShrinkParts / parts;
    int piece = first;
#pragma unroll 1
    for (unsigned left = runs_; left != 0; left &= left - 1, piece -= pieces) {
      const int begin = __ffs(left) - 1;
      const int end = __shfl_sync(kAllLanes, run_.end, begin);
      const int token = __shfl_sync(kAllLanes, row_.token, min(begin + lane_, 31));
      const MoeAdapterSlot& slot = p_.adapters[__shfl_sync(kAllLanes, row_.slot, begin)];
      const bool shares_a = slot.shrink_gate_up_stride == 0;
      MoeShrinkItem item;
      item.first_row = item.ready_index = tile.first_row + begin;
      item.num_tokens = end - begin;
      item.rank = slot.rank_gate_up, item.one_a = slot.one_a;
      item.num_parts = parts;
      item.scaling_gate = slot.scaling_gate, item.scaling_up = slot.scaling_up;
      const int num_rows = shares_a ? 0 : num_shrink_rows(slot);
#pragma unroll 1
      for (; piece < pieces; piece += step) {
        item.first_part = piece * parts;
        item.factor = slot.shrink_gate_up + tile.expert * slot.shrink_gate_up_stride;
#pragma unroll 1
        for (item.slab = 0; 64 * item.slab < num_rows; ++item.slab) {
          shrink(item, token);
          item.factor += int64_t{64} * 2 * p_.sizes.hidden_size;
        }
      }
    }
  }

  // 128 rows of an expert's matrix times the tokens of a tile, but for what a guess has read.
  __device__ void weight_tile(const MoeTokenTile& tile, int index) {
    constexpr bool kGateUp = Config::kGateUp;
    const ActivationImage image = kGateUp ? x_image_of(tile) : h_image_of(tile);
    const uint8_t* const images = kGateUp ? p_.workspace.x_image : p_.workspace.h_image;
    const uint8_t* const weights = weights_of(tile.expert, index);
    const int bytes = Config::stage_bytes(tile.num_tokens);
    const int first = num_guessed_, last = num_stages() - 1;
    const auto stage = [&](int k) {
      open(bytes);
      // With stages of weights still under way: asking takes long where memory is busy.
      if (Config::kLora && kGateUp && k == last && num_expand_cells_ > 0) wait_for_shrink();
      if (lane_ == 0) {
        StageHeader& header = ring_.header();
        if (k == 0) begin_tile(header, tile, index);
        if (k == first) header.kind = StageKind::kWeights;
        if (Config::kLora && k == last) {
          header.num_expand_cells = num_expand_cells_;
          header.num_down_cells = num_down_cells_;
        }
      }
      copy_weights(weights, k);
      if (!kGateUp && tells_tiles_ && k == 0) find_results(tile);
      close_weights(activations(images, image, tile.num_tokens, k));
    };
    if constexpr (kLooksAhead) {
      // What is looked up comes while stages are asked for: a read takes as long as some of them.
      if constexpr (Config::kLora) load_rows(tile);
      int k = first;
      if (first < last) stage(k++);
#pragma unroll 1
      for (int step = 0; step < 4; ++step) {
        const int end = step == 0 ? first + 2 : step == 1 ? first + 4 : step == 2 ? last - 3 : last;
        k = middle_stages(weights, images, image, tile, k, min(end, last));
        // The answer is there when this tile's loads have been issued.
        if (step == (kGateUp ? 2 : 0)) claim();
        if (Config::kLora && step == 0) find_runs(), load_slots();
        if (Config::kLora && step == 1) find_factors(tile, index);
      }
      find_unit();
      stage(last);
    } else {
      // Weights come first: finding out about the factors takes a few reads, one after the other.
      const int find_runs_at = min(max(3, first), last), claim_at = max(first, last - 3);
#pragma unroll 1
      for (int k = first; k <= last; ++k) {
        if (Config::kLora && k == find_runs_at) {
          load_rows(tile);
          find_runs();
          load_slots();
          find_factors(tile, index);
        }
        if (k == claim_at) claim();
        stage(k);
      }
    }
    num_guessed_ = 0;
    if constexpr (Config::kLora) {
      if (num_expand_cells_ > 0) {
        factors<Config::kExpandCells, kExpandStepBytes>(tile, num_expand_cells_,
                                                        /*down=*/!kGateUp, 0);
      }
      if (num_down_cells_ > 0) {
        factors<Config::kDownCells, kDownShrinkStepBytes>(tile, num_down_cells_, /*down=*/true, 1);
      }
    }
  }

  // Units that claim() is about, of all of gate_up's other tiles or down's tiles; the first
  // `num_dealt` have been dealt out.
  __device__ void set_units(int num_units, int num_dealt) {
    num_units_ = num_units, num_dealt_ = num_dealt;
  }
  // Takes a unit from those that no CTA has begun: what CTAs take follows from how fast they are.
  __device__ void claim() {
    if (lane_ == 0) {
      MoeCounts* const counts = p_.workspace.counts;
      claimed_ = fetch_increment(Config::kGateUp ? &counts->next_gate_up : &counts->next_down);
    }
    found_unit_ = false;
  }
  // How many had been taken before.
  __device__ int claimed() const { return __shfl_sync(kAllLanes, claimed_, 0); }
  // The one that was claimed last, if there was one.
  __device__ bool next_unit(MoeTokenTile* tile, int* index) {
    find_unit();
    *tile = next_tile_, *index = unit_ % tiles_per_expert();
    return unit_ < num_units_;
  }

  // After the last tile.
  __device__ void finish() {
    open(0);
    if (lane_ == 0) {
      ring_.header().kind = StageKind::kEnd;
      mbarrier_arrive(ring_.full());
    }
    __syncwarp();
    if constexpr (Config::kGateUp) return;
    take_results();
    if (tells_tiles_) {
      // The next kernel may start when gate_up has finished.
      wait_for_previous_kernel();
      let_next_kernel_start();
    }
    // For the next layer, which counts from zero.
    if constexpr (Config::kLora) {
      const int pairs = p_.num_tokens * p_.sizes.pairs_per_token();
      const int rows = min(p_.workspace.max_rows, 8 * pairs), threads = 32 * gridDim.x;
      for (int i = blockIdx.x * 32 + lane_; i < rows; i += threads) p_.workspace.run_ready[i] = 0;
      for (int i = blockIdx.x * 32 + lane_; i < p_.num_slots; i += threads)
        p_.workspace.run_ready[p_.workspace.max_rows + i] = 0;
    }
  }

 private:
  static constexpr int kWarps = Config::kConsumers / 32;
  // Where registers allow it, what is read is not waited for at once.
  static constexpr bool kLooksAhead = Config::kCtasPerSm <= 2 && !Config::kSmallBatch;

  // `count` pieces into a stage, as far apart there as where they come from.
  struct Copy {
    const uint8_t* from;
    int32_t offset;  // in the stage
    int32_t bytes;   // of a piece
    int32_t step;
    int32_t count;

    __device__ __forceinline__ void issue(int i, uint8_t* stage, uint64_t* full) const {
      bulk_copy(stage + offset + i * step, from + i * step, bytes, full, CachePolicy::kEvictLast);
    }
    __device__ __forceinline__ void issue_all(uint8_t* stage, uint64_t* full) const {
#pragma unroll 1
      for (int i = 0; i < count; ++i) issue(i, stage, full);
    }
  };

  __device__ int columns() const {
    return Config::kGateUp ? p_.sizes.hidden_size : p_.sizes.moe_intermediate_size;
  }
  // Of weights.
  __device__ int tiles_per_expert() const {
    return Config::kGateUp ? p_.sizes.moe_intermediate_size / 64 : p_.sizes.hidden_size / 128;
  }
  __device__ int num_stages() const { return columns() / Config::kStageColumns; }
  __device__ ActivationImage x_image_of(const MoeTokenTile& tile) const {
    return activation_image(Config::kFormat, tile.first_row, tile.num_tokens, p_.sizes.hidden_size,
                            1);
  }
  __device__ ActivationImage h_image_of(const MoeTokenTile& tile) const {
    return activation_image(Config::kFormat, tile.first_row, tile.num_tokens,
                            p_.sizes.moe_intermediate_size, 2);
  }
  // What stage k of the main loop reads of the tile's x or h: of BF16, which weighs as much as a
  // few rows of NVFP4 weights, no more tokens than there are.
  __device__ Copy activations(const uint8_t* images, const ActivationImage& image, int num_tokens,
                              int k) const {
    return {.from = images + image.offset(k * Config::kStageImages),
            .offset = Config::kRowsOffset - image.scale_bytes,
            .bytes = Config::kFp8 ? image.depth_bytes : num_tokens * 128,
            .step = image.depth_bytes,
            .count = Config::kStageImages};
  }
  __device__ void begin_tile(StageHeader& header, const MoeTokenTile& tile, int index) const {
    header.kind = StageKind::kWeights;
    header.first_row = tile.first_row;
    header.num_tokens = tile.num_tokens;
    header.index = index;
    header.shrink_at = -1;
  }
  // Of stage k into the open stage, which is left to be closed.
  __device__ void copy_weights(const uint8_t* weights, int k) const {
    if (lane_ != 0) return;
    constexpr int kBytes = Config::kStageWeightBytes;
    const int scales = k == 0 ? scales_behind_bytes(Config::kFormat, columns()) : 0;
    mbarrier_expect(ring_.full(), kBytes + scales);
    bulk_copy(ring_.data(), weights + k * kBytes, kBytes, ring_.full(), CachePolicy::kEvictFirst);
    if (scales > 0) {
      void* const to = Config::kFp8 ? static_cast<void*>(ring_.data() + Config::kScaleOffset)
                                    : ring_.header().global_scales;
      bulk_copy(to, weights + num_stages() * kBytes, scales, ring_.full(),
                CachePolicy::kEvictFirst);
    }
  }

  // The rest of a stage whose weights have been asked for.
  __device__ void close_weights(const Copy& activations) {
    if constexpr (Config::kSmallBatch) {
      if (lane_ == 0) mbarrier_arrive(ring_.full());
      __syncwarp();
    } else {
      finish_stage(activations);
    }
  }
  // Stages [k, end), neither the first nor the last of their tile; returns end. What this takes is
  // how fast a CTA can read, so there is nothing in it that need not be.
  __device__ __forceinline__ int middle_stages(const uint8_t* weights, const uint8_t* images,
                                               const ActivationImage& image,
                                               const MoeTokenTile& tile, int k, int end) {
    constexpr int kBytes = Config::kStageWeightBytes;
    const int bytes = Config::stage_bytes(tile.num_tokens);
    Copy x = activations(images, image, tile.num_tokens, k);
    weights += k * kBytes;
#pragma unroll 1
    for (; k < end; ++k) {
      open(bytes);
      if (results_ready_) {
        __syncwarp();  // lane 0 has written the header
        if (elect_one()) {
          mbarrier_arrive_expect(ring_.full(), kBytes + x.bytes * Config::kStageImages);
          bulk_copy(ring_.data(), weights, kBytes, ring_.full(), CachePolicy::kEvictFirst);
#pragma unroll
          for (int i = 0; i < Config::kStageImages; ++i) x.issue(i, ring_.data(), ring_.full());
        }
        __syncwarp();
      } else {
        copy_weights(weights - k * kBytes, k);
        finish_stage(x);
      }
      weights += kBytes;
      x.from += Config::kStageImages * x.step;
    }
    return k;
  }

  // Looks the claimed unit up, unless that has been done.
  __device__ void find_unit() {
    if (kLooksAhead && found_unit_) return;
    found_unit_ = true;
    unit_ = num_dealt_ + claimed();
    const MoeTokenTile* const tiles =
        Config::kGateUp ? p_.workspace.other_tiles : p_.workspace.tiles;
    if (unit_ < num_units_) next_tile_ = load_entry(tiles + unit_ / tiles_per_expert());
  }

  // The down kernel's producer starts before gate_up has finished: while a tile's h and v are not
  // there, it fills the ring with weights and factors, remembers what belongs to them (lane i for
  // stage i), and takes that when the ring is full.
  __device__ void open(int bytes) {
    if (has_pending_ && !ring_.has_room(bytes)) take_results();
    ring_.open(bytes);
  }
  // Adds a result of the previous kernel to the stage, and closes it.
  __device__ void finish_stage(const Copy& result) {
    if (results_ready_) {
      if (lane_ == 0) mbarrier_arrive_expect(ring_.full(), result.bytes * result.count);
      if constexpr (Config::kStageImages > 1) __syncwarp();
      if (lane_ < result.count) result.issue(lane_, ring_.data(), ring_.full());
      __syncwarp();
    } else {
      has_pending_ = true;
      if (lane_ == ring_.stage())
        pending_to_ = ring_.data(), pending_ = result, pending_ready_ = tile_ready_;
    }
  }
  // Warps of gate_up that store a part of a tile's h and v.
  __device__ int warps_of_tile() const { return kWarps * (p_.sizes.moe_intermediate_size / 64); }
  // Whether they all have, or, as lane 0 asks with the same load, all of gate_up is done: then
  // nothing is asked any more, which takes longer than a tile of few stages. gate_up has as many
  // CTAs as this kernel.
  __device__ void find_results(const MoeTokenTile& tile) {
    if (all_ready_) return;
    tile_ready_ = p_.workspace.h_ready + tile.first_row / 8;
    const int ready = load_acquire(lane_ == 0 ? &p_.workspace.counts->gate_up_done : tile_ready_);
    const unsigned answers = __ballot_sync(
        kAllLanes, ready == (lane_ == 0 ? kWarps * static_cast<int>(gridDim.x) : warps_of_tile()));
    all_ready_ = (answers & 1) != 0;
    results_ready_ = answers != 0;
    __syncwarp();  // copies are issued by other lanes than the one that has seen it
    fence_proxy_async_global();
  }
  // Waits for what stages lack, and closes them.
  __device__ void take_results() {
    if (!tells_tiles_ && !results_ready_) {
      wait_for_previous_kernel();
      let_next_kernel_start();
    }
    while (tells_tiles_ && pending_.count > 0 && load_acquire(pending_ready_) < warps_of_tile()) {
    }
    __syncwarp();
    fence_proxy_async_global();
    if (pending_.count > 0) {
      mbarrier_arrive_expect(&shared_.full[lane_], pending_.bytes * pending_.count);
      pending_.issue_all(pending_to_, &shared_.full[lane_]);
      pending_.count = 0;
    }
    has_pending_ = false;
    results_ready_ = true;
    __syncwarp();
  }
  __device__ const uint8_t* weights_of(int expert, int index) const {
    return (Config::kGateUp ? p_.weights.gate_up : p_.weights.down) +
           (int64_t{expert} * tiles_per_expert() + index) *
               weight_rows_bytes(Config::kFormat, columns());
  }

  // Lane i keeps row i of the tile.
  __device__ void load_rows(const MoeTokenTile& tile) {
    if (kLooksAhead && tile.first_row == rows_from_) return;
    rows_from_ = tile.first_row;
    row_.slot = kNoAdapter;
    if constexpr (Config::kSmallBatch) {
      row_ = small_batch_row(p_, shared_.batch(), tile, lane_);
    } else if (tile.num_runs > 0 && lane_ < tile.num_tokens) {
      row_ = load_entry(p_.workspace.rows + tile.first_row + lane_);
    }
  }
  // And, where a run begins there, how far it goes.
  __device__ void find_runs() {
    const int left = __shfl_up_sync(kAllLanes, row_.slot, 1);
    const bool differs = lane_ == 0 || row_.slot != left;
    const unsigned differing = __ballot_sync(kAllLanes, differs);
    runs_ = __ballot_sync(kAllLanes, differs && row_.slot != kNoAdapter);
    const unsigned later = lane_ < 31 ? differing >> (lane_ + 1) : 0;
    run_ = {};
    run_.end = later != 0 ? lane_ + __ffs(later) : 32;
  }

  // What its adapter says of the factors.
  __device__ void load_slots() {
    if ((runs_ >> lane_ & 1) == 0) return;
    const MoeAdapterSlot& slot = p_.adapters[row_.slot];
    run_.rank_gate_up = slot.rank_gate_up, run_.rank_down = slot.rank_down;
    if constexpr (Config::kGateUp) {
      factor_[0] = slot.expand_gate_up, stride_[0] = slot.expand_gate_up_stride;
      factor_[1] = slot.shrink_down, stride_[1] = slot.shrink_down_stride;
      scaling_ = slot.scaling_down;
      one_a_ = slot.one_a, shares_a_ = slot.shrink_gate_up_stride == 0;
    } else {
      factor_[0] = slot.expand_down, stride_[0] = slot.expand_down_stride;
    }
  }
  // Where those of this tile lie.
  __device__ void find_factors(const MoeTokenTile& tile, int index) {
    if (runs_ >> lane_ & 1) {
      factor_[0] += tile.expert * stride_[0] +
                    index * expand_tile_bytes(Config::kGateUp ? run_.rank_gate_up : run_.rank_down);
      if constexpr (Config::kGateUp) {
        factor_[1] += tile.expert * stride_[1] + index * down_shrink_tile_bytes(run_.rank_down);
        run_.ready_index = shares_a_ ? p_.workspace.max_rows + row_.slot : tile.first_row + lane_;
        const int num_rows = one_a_ ? run_.rank_gate_up : 2 * run_.rank_gate_up;
        run_.ready_count = (num_rows + 15) / 16 * kShrinkParts * row_.num_shrinks;
      }
    }
    num_expand_cells_ = __reduce_add_sync(
        kAllLanes, rank_steps(Config::kGateUp ? run_.rank_gate_up : run_.rank_down));
    num_down_cells_ =
        Config::kGateUp ? __reduce_add_sync(kAllLanes, rank_steps(run_.rank_down)) : 0;
  }

  // Every CTA comes to its shrink items before it waits for those of others, so this ends.
  __device__ void wait_for_shrink() {
    if (run_.rank_gate_up > 0) {
      while (load_acquire(p_.workspace.run_ready + run_.ready_index) < run_.ready_count) {
      }
      fence_proxy_async_global();
    }
    __syncwarp();
  }

  // The parts of u or v for one step of ranks. Consumers look for it before the step's first cell.
  __device__ void parts(const MoeTokenTile& tile, int step) {
    if constexpr (Config::kGateUp) {
      constexpr int kRowBytes = kURowFloats * static_cast<int>(sizeof(float));
      const int num_tokens = Config::kSmallBatch ? p_.num_tokens : tile.num_tokens;
      open(num_tokens * kRowBytes);
      if (lane_ == 0) {
        ring_.header().num_cells = 0;
        mbarrier_arrive_expect(ring_.full(), num_tokens * kRowBytes);
      }
      __syncwarp();
      if (lane_ < num_tokens) {
        bulk_copy(ring_.data() + lane_ * kRowBytes, u_of(p_, step, row_.u_row), kRowBytes,
                  ring_.full(), CachePolicy::kEvictLast);
      }
      __syncwarp();
    } else {
      const int bytes = tile.num_tokens * v_row_floats(p_.sizes.moe_intermediate_size) *
                        static_cast<int>(sizeof(float));
      open(bytes);
      if (lane_ == 0) ring_.header().num_cells = 0;
      finish_stage({.from = reinterpret_cast<const uint8_t*>(v_of(p_, step, tile.first_row)),
                    .offset = 0,
                    .bytes = bytes,
                    .step = 0,
                    .count = 1});
    }
  }

  // Rank step by rank step, the factors of the runs that have it.
  template <int kCells, int kStepBytes>
  __device__ void factors(const MoeTokenTile& tile, int num_cells, bool down, int which) {
    const int my_rank = down ? run_.rank_down : run_.rank_gate_up;
    const int max_rank = __reduce_max_sync(kAllLanes, my_rank);
    int cell = 0;
#pragma unroll 1
    for (int step = 0; 16 * step < max_rank; ++step) {
      if (which == 0) {
        if (cell > 0) close_cells(&cell);
        parts(tile, step);
      }
#pragma unroll 1
      for (unsigned left = runs_; left != 0; left &= left - 1) {
        const int r = __ffs(left) - 1;
        const int rank = __shfl_sync(kAllLanes, my_rank, r);
        if (16 * step >= rank) continue;
        const int end = __shfl_sync(kAllLanes, run_.end, r);
        const float scaling = __shfl_sync(kAllLanes, scaling_, r);
        const auto factor = reinterpret_cast<const uint8_t*>(
            __shfl_sync(kAllLanes, reinterpret_cast<uint64_t>(factor_[which]), r));
        if (cell == 0) open(min(kCells, num_cells) * kStepBytes);
        if (lane_ == 0) {
          const bool half = step_width(rank, step) == 8;
          const uint32_t bytes = half ? kStepBytes / 2 : kStepBytes;
          StageHeader& header = ring_.header();
          header.cells[cell] = {static_cast<int16_t>(r), static_cast<int16_t>(end),
                                static_cast<int16_t>(step), half};
          header.scaling[cell] = scaling;
          mbarrier_expect(ring_.full(), bytes);
          bulk_copy(ring_.data() + cell * kStepBytes, factor + step * kStepBytes, bytes,
                    ring_.full(), CachePolicy::kEvictFirst);
        }
        --num_cells;
        if (++cell == kCells) close_cells(&cell);
      }
    }
    if (cell > 0) close_cells(&cell);
  }

  __device__ void close_cells(int* cell) {
    if (lane_ == 0) {
      ring_.header().num_cells = *cell;
      mbarrier_arrive(ring_.full());
    }
    __syncwarp();
    *cell = 0;
  }

  bool tells_tiles_;
  const MoeLayerParams& p_;
  GemmShared<Config>& shared_;
  RingWriter<Config> ring_;
  int lane_;
  int claimed_ = 0;  // lane 0
  bool found_unit_ = false;
  int unit_ = 0;
  MoeTokenTile next_tile_ = {};
  int num_units_ = 0, num_dealt_ = 0;
  int num_guessed_ = 0;  // stages of the next weight tile that a guess has read
  // Of the tile whose runs were found last: lane i keeps row i and, where a run begins there (a bit
  // of runs_), the run.
  struct Run {
    int32_t end;
    int32_t rank_gate_up;  // 0 in other lanes
    int32_t rank_down;
    int32_t ready_index;  // its u is complete when run_ready[ready_index] == ready_count
    int32_t ready_count;
  };
  int rows_from_ = -1;
  MoeRow row_ = {};
  unsigned runs_ = 0;
  Run run_ = {};
  const uint8_t* factor_[2];  // expand, down shrink
  int64_t stride_[2];         // of these, from expert to expert
  bool one_a_ = false, shares_a_ = false;
  float scaling_ = 0.0f;
  int num_expand_cells_ = 0;
  int num_down_cells_ = 0;
  // Down: of all tiles; of the present one; its count in h_ready.
  bool all_ready_ = false;
  bool results_ready_ = Config::kGateUp;
  const int32_t* tile_ready_ = nullptr;
  // What a stage lacks, in its lane, and of which tile it is.
  bool has_pending_ = false;
  uint8_t* pending_to_ = nullptr;
  Copy pending_ = {};
  const int32_t* pending_ready_ = nullptr;
};

// Weights that will be needed for certain (the shared expert's) or most likely (gate_up of
// num_experts routed ones from `first` on) come into L2 while memory idles.
template <WeightFormat kFormat>
__device__ __forceinline__ void prefetch_experts(const MoeSizes& s, const MoeWeights& weights,
                                                 int first, int num_experts) {
  constexpr int kChunk = 16 * 1024;
  const auto slice = [&](const uint8_t* begin, int64_t bytes) {
    for (int64_t at = int64_t{blockIdx.x} * kChunk; at < bytes; at += int64_t{gridDim.x} * kChunk)
      bulk_prefetch_l2(begin + at, static_cast<uint32_t>(min(int64_t{kChunk}, bytes - at)));
  };
  const int64_t gate_up =
      int64_t{s.moe_intermediate_size / 64} * weight_rows_bytes(kFormat, s.hidden_size);
  const int64_t down =
      int64_t{s.hidden_size / 128} * weight_rows_bytes(kFormat, s.moe_intermediate_size);
  if (s.num_shared_experts > 0) {
    slice(weights.gate_up + s.num_experts * gate_up, gate_up);
    slice(weights.down + s.num_experts * down, down);
  }
  slice(weights.gate_up + first * gate_up, num_experts * gate_up);
}

}  // namespace braid::kernels

#pragma once

// The two grouped GEMMs of the MoE layer: weights times tokens, FP8 by wgmma, LoRA by mma into the
// accumulators. Weights are wgmma's A operand (128 rows), tokens its B operand, so that a tile of a
// few tokens costs no more than its bytes.
//
// A CTA is one consumer warpgroup and one producer warp; two CTAs share an SM, so that one's
// epilogue hides under the other's main loop. Everything that is read from memory in bulk goes
// through one ring of stages in shared memory, in the order in which the consumers use it: A
// factors and x (shrink), weights and activations (main loop), B factors (expand), A factors of
// down (down shrink).

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/mbarrier.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/common/wgmma.cuh"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/moe_layer.h"

namespace braid::kernels {

enum class MoeGemm { kGateUp, kDown };

template <MoeGemm kGemm, int kTokens_, bool kLora_>
struct GemmConfig {
  static constexpr bool kGateUp = kGemm == MoeGemm::kGateUp;
  static constexpr bool kLora = kLora_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kColumnTiles = kTokens / 8;
  static constexpr int kConsumers = 128;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kCtasPerSm = 2;
  static constexpr int kScaleGroups = kGateUp ? 1 : 2;  // of activations, in 128 of depth

  // A stage of the main loop: weight tile, in the first one the scales of all, and before the
  // activations' rows their scales.
  static constexpr int kScaleOffset = 128 * 128;
  static constexpr int kRowsOffset = kScaleOffset + 1024;
  // A stage of factors: cells, each one rank step of one run. A stage of a shrink item.
  static constexpr int kExpandCells = 4;
  static constexpr int kDownCells = 8;
  static constexpr int kShrinkBytes = 18 * 1024;

  static constexpr int kHStride = 64 * 2 + 16;  // h in shared memory, bytes a token
  static constexpr int kOutStride = 64 + 16;    // output of a warp, bytes a token
  static constexpr int kScratchBytes = kGateUp ? kTokens * kHStride : 4 * 8 * kOutStride;
  // 228 kB an SM, of which the system takes 1 kB a CTA.
  static constexpr int kSharedBytes = (228 / kCtasPerSm - 1) * 1024;
  static constexpr int kStages = 16;  // at most; fewer where they fill the ring
  static constexpr int kRingBytes = (kSharedBytes - kScratchBytes - 4096) / 1024 * 1024;
};

// A rank step of one run's factor.
struct FactorCell {
  int16_t begin;  // the run's tokens
  int16_t end;
  int16_t step;
  int16_t is_half;  // 8 ranks instead of 16
};

// What the producer tells the consumers with a stage.
struct StageHeader {
  int32_t offset;  // of its data in the ring
  // First stage of a weight tile or shrink item.
  int32_t first_row;
  int32_t num_tokens;
  int32_t index;  // of the weight tile within the expert; of the slab
  // Last stage of a weight tile.
  int32_t num_expand_cells;
  int32_t num_down_cells;
  // Shrink items.
  int32_t num_slab_rows;
  int32_t rank;
  int32_t one_a;
  int32_t ready_index;
  float scaling_gate;
  float scaling_up;
  // Stages of factors.
  int32_t num_cells;
  FactorCell cells[8];
  float scaling[8];
};

template <class Config>
struct alignas(1024) GemmShared {
  uint8_t ring[Config::kRingBytes];
  alignas(16) uint8_t scratch[Config::kScratchBytes];
  StageHeader headers[Config::kStages];
  uint64_t full[Config::kStages];
  uint64_t empty[Config::kStages];
};

// The consumers' side of the ring. Stages are of different sizes; they come, and are given back, in
// one order.
template <class Config>
struct RingReader {
  GemmShared<Config>& shared;
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ const StageHeader& header() const { return shared.headers[stage]; }
  __device__ __forceinline__ const uint8_t* data() const { return shared.ring + header().offset; }
  __device__ __forceinline__ void wait_full() const { mbarrier_wait(&shared.full[stage], parity); }
  // The warp has read all it needs of the stage.
  __device__ __forceinline__ void release(int lane) {
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&shared.empty[stage]);
    if (++stage == Config::kStages) stage = 0, parity ^= 1;
  }
};

// The producer's side, held alike by all lanes of its warp. Stages lie one behind the other,
// multiples of 1024 bytes, and never across the ring's end.
template <class Config>
class RingWriter {
 public:
  __device__ RingWriter(GemmShared<Config>& shared, int lane) : shared_(shared), lane_(lane) {}

  // Whether open() would not wait.
  __device__ __forceinline__ bool has_room(int bytes) const {
    const int size = (bytes + 1023) / 1024 * 1024;
    const int unused = offset_ + size > Config::kRingBytes ? Config::kRingBytes - offset_ : 0;
    return num_open_ < Config::kStages && head_ + unused + size - tail_ <= Config::kRingBytes;
  }

  // Waits until `bytes` are free behind the last stage, and opens a stage there.
  __device__ __forceinline__ void open(int bytes) {
    const int size = (bytes + 1023) / 1024 * 1024;
    if (offset_ + size > Config::kRingBytes) head_ += Config::kRingBytes - offset_, offset_ = 0;
    while (num_open_ == Config::kStages ||
           (num_open_ > 0 && head_ + size - tail_ > Config::kRingBytes)) {
      mbarrier_wait(&shared_.empty[oldest_], oldest_parity_);
      tail_ = __shfl_sync(0xffffffffu, my_end_, oldest_);
      if (++oldest_ == Config::kStages) oldest_ = 0, oldest_parity_ ^= 1;
      --num_open_;
    }
    if (num_open_ == 0) tail_ = head_;
    stage_ = next_;
    data_ = shared_.ring + offset_;
    if (lane_ == 0) header().offset = offset_;
    head_ += size, offset_ += size;
    if (lane_ == stage_) my_end_ = head_;
    ++num_open_;
    if (++next_ == Config::kStages) next_ = 0;
  }

  // Of the stage opened last.
  __device__ __forceinline__ uint8_t* data() const { return data_; }
  __device__ __forceinline__ StageHeader& header() const { return shared_.headers[stage_]; }
  __device__ __forceinline__ uint64_t* full() const { return &shared_.full[stage_]; }
  __device__ __forceinline__ int stage() const { return stage_; }

 private:
  static_assert(Config::kStages <= 32, "a lane keeps the end of one stage");

  GemmShared<Config>& shared_;
  int lane_;
  uint8_t* data_ = nullptr;
  int stage_ = 0, next_ = 0;
  int num_open_ = 0;  // not known to be given back
  int oldest_ = 0;    // of these
  uint32_t oldest_parity_ = 0;
  uint32_t head_ = 0,
           tail_ = 0;    // bytes ever opened and given back, with what lies unused at the end
  int offset_ = 0;       // of head_ in the ring
  uint32_t my_end_ = 0;  // lane i: head_ behind stage i
};

// Columns of A that one stage of a shrink item takes, with as much of x behind them: as many as
// fit, in steps of 16.
template <class Config>
__device__ __forceinline__ int shrink_depth(int num_slab_rows, int num_tokens) {
  const int tokens = (num_tokens + 7) / 8 * 8;
  return (Config::kShrinkBytes - 16 * tokens) / (2 * (num_slab_rows + tokens)) / 16 * 16;
}
// A token's x in a stage; the odd multiple of 16 bytes keeps ldmatrix free of bank conflicts.
__device__ __forceinline__ int shrink_x_stride(int depth) { return 2 * depth + 16; }

__device__ __forceinline__ void consumer_barrier() {
  asm volatile("bar.sync 1, 128;" ::: "memory");
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

__device__ __forceinline__ int load_acquire(const int32_t* at) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

// v, the down shrink: for each rank step and row one partial sum of 16 ranks from every gate_up
// tile.
__device__ __forceinline__ int v_row_bytes(const MoeSizes& s) {
  return s.moe_intermediate_size / 64 * 16 * static_cast<int>(sizeof(float));
}
__device__ __forceinline__ float* v_of(const MoeLayerParams& p, int step, int row) {
  const int64_t at = int64_t{step} * p.workspace.max_rows + row;
  return p.workspace.v + at * (p.sizes.moe_intermediate_size / 64 * 16);
}

// --- producer: one warp that keeps the ring full ---

template <class Config>
class Producer {
 public:
  __device__ Producer(const MoeLayerParams& p, GemmShared<Config>& shared, int lane)
      : p_(p), shared_(shared), ring_(shared, lane), lane_(lane) {}

  // Rows of A times the tokens of a run.
  __device__ void shrink(const MoeShrinkItem& item) {
    const int hidden = p_.sizes.hidden_size;
    const MoeAdapterSlot& slot = p_.adapters[item.slot];
    const int rank = slot.rank_gate_up, one_a = slot.one_a;
    const int rows = slab_rows(one_a ? rank : 2 * rank, item.slab);
    const int depth = shrink_depth<Config>(rows, item.num_tokens);
    const uint8_t* factor = slot.shrink_gate_up + item.expert * slot.shrink_gate_up_stride +
                            int64_t{item.slab} * 64 * 2 * hidden;
    const float scaling_gate = slot.scaling_gate, scaling_up = slot.scaling_up;
    const Bf16* x[2];
    for (int i = 0; i < 2; ++i) {
      const int n = min(lane_ + 32 * i, item.num_tokens - 1);
      x[i] = p_.x + int64_t{__ldcg(p_.workspace.token_of_row + item.first_row + n)} * hidden;
    }
#pragma unroll 1
    for (int k = 0; k < hidden; k += depth) {
      const int columns = min(depth, hidden - k);
      ring_.open(Config::kShrinkBytes);
      if (lane_ == 0) {
        if (k == 0) {
          StageHeader& header = ring_.header();
          header.first_row = item.first_row;
          header.num_tokens = item.num_tokens;
          header.index = item.slab;
          header.num_slab_rows = rows;
          header.rank = rank;
          header.one_a = one_a;
          header.ready_index = item.ready_index;
          header.scaling_gate = scaling_gate;
          header.scaling_up = scaling_up;
        }
        mbarrier_arrive_expect(ring_.full(), 2 * columns * (rows + item.num_tokens));
        bulk_copy(ring_.data(), factor + int64_t{k} * rows * 2, 2 * columns * rows, ring_.full(),
                  CachePolicy::kEvictFirst);
      }
      __syncwarp();
      uint8_t* const x_begin = ring_.data() + 2 * depth * rows;
      for (int i = 0; i < 2; ++i) {
        const int n = lane_ + 32 * i;
        if (n >= item.num_tokens) continue;
        bulk_copy(x_begin + n * shrink_x_stride(depth), x[i] + k, 2 * columns, ring_.full(),
                  CachePolicy::kEvictLast);
      }
    }
  }

  // 128 rows of an expert's matrix times the tokens of a tile.
  __device__ void weight_tile(const MoeTokenTile& tile, int index) {
    constexpr bool kGateUp = Config::kGateUp;
    const int depth = this->depth();
    if constexpr (Config::kLora) load_runs(tile, index);
    const uint8_t* weights = weights_of(tile, index);
    const ActivationImage image =
        activation_image(tile.first_row, tile.num_tokens, depth, Config::kScaleGroups);
    const uint8_t* activations =
        (kGateUp ? p_.workspace.x_image : p_.workspace.h_image) + image.begin;
    const int bytes = Config::kRowsOffset + (tile.num_tokens + 7) / 8 * 8 * 128;
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
      open(bytes);
      if (lane_ == 0) {
        StageHeader& header = ring_.header();
        if (k == 0) {
          header.first_row = tile.first_row;
          header.num_tokens = tile.num_tokens;
          header.index = index;
        }
        if (Config::kLora && k == depth - 1) {
          header.num_expand_cells = num_expand_cells_;
          header.num_down_cells = num_down_cells_;
        }
        mbarrier_expect(ring_.full(), kWeightTileBytes + (k == 0 ? weight_scale_bytes(depth) : 0));
        bulk_copy(ring_.data(), weights + k * kWeightTileBytes, kWeightTileBytes, ring_.full(),
                  CachePolicy::kEvictFirst);
        if (k == 0) {
          bulk_copy(ring_.data() + Config::kScaleOffset, weights + depth * kWeightTileBytes,
                    weight_scale_bytes(depth), ring_.full(), CachePolicy::kEvictFirst);
        }
      }
      finish_stage(Config::kRowsOffset - image.scale_bytes,
                   activations + int64_t{k} * image.depth_bytes, image.depth_bytes);
    }
    if constexpr (Config::kLora) {
      if (num_expand_cells_ > 0) {
        u_is_ready_ = !kGateUp;
        factors<Config::kExpandCells, kExpandStepBytes>(tile, num_expand_cells_,
                                                        /*down=*/!kGateUp, 0);
      }
      if (num_down_cells_ > 0) {
        factors<Config::kDownCells, kDownShrinkStepBytes>(tile, num_down_cells_, /*down=*/true, 1);
      }
    }
  }

  // After the last tile.
  __device__ void finish() {
    if (!results_ready_) take_results();
  }

 private:
  static constexpr int kRunsPerLane = 2;  // a tile has at most 64 tokens, so at most 64 runs

  __device__ int depth() const {
    return (Config::kGateUp ? p_.sizes.hidden_size : p_.sizes.moe_intermediate_size) / 128;
  }
  // The down kernel's producer starts before gate_up has finished: it fills the ring with weights
  // and factors, remembers what h and v belong to them (lane i for stage i), and takes those when
  // the ring is full.
  __device__ void open(int bytes) {
    if (!results_ready_ && !ring_.has_room(bytes)) take_results();
    ring_.open(bytes);
  }
  // Adds a result of the previous kernel to the stage, and closes it.
  __device__ void finish_stage(int offset, const uint8_t* result, int bytes) {
    if (results_ready_) {
      if (lane_ == 0) {
        mbarrier_arrive_expect(ring_.full(), bytes);
        bulk_copy(ring_.data() + offset, result, bytes, ring_.full(), CachePolicy::kEvictLast);
      }
      __syncwarp();
    } else if (lane_ == ring_.stage()) {
      pending_to_ = ring_.data() + offset, pending_from_ = result, pending_bytes_ = bytes;
    }
  }
  __device__ void take_results() {
    __syncwarp();
    wait_for_previous_kernel();
    let_next_kernel_start();
    fence_proxy_async();
    if (pending_bytes_ > 0) {
      mbarrier_arrive_expect(&shared_.full[lane_], pending_bytes_);
      bulk_copy(pending_to_, pending_from_, pending_bytes_, &shared_.full[lane_],
                CachePolicy::kEvictLast);
    }
    results_ready_ = true;
    __syncwarp();
  }
  __device__ const uint8_t* weights_of(const MoeTokenTile& tile, int index) const {
    const int num_tiles =
        Config::kGateUp ? p_.sizes.moe_intermediate_size / 64 : p_.sizes.hidden_size / 128;
    return (Config::kGateUp ? p_.weights.gate_up : p_.weights.down) +
           (int64_t{tile.expert} * num_tiles + index) * weight_rows_bytes(depth());
  }

  // Lane i keeps runs i and i + 32 of the tile, and where their factors lie.
  __device__ void load_runs(const MoeTokenTile& tile, int index) {
    int expand_cells = 0, down_cells = 0;
#pragma unroll
    for (int i = 0; i < kRunsPerLane; ++i) {
      run_[i] = {};
      if (lane_ + 32 * i < tile.num_runs) {
        run_[i] = load_entry(p_.workspace.runs + tile.first_row + lane_ + 32 * i);
        const MoeAdapterSlot& slot = p_.adapters[run_[i].slot];
        if constexpr (Config::kGateUp) {
          factor_[0][i] = slot.expand_gate_up + run_[i].expert * slot.expand_gate_up_stride +
                          index * expand_tile_bytes(run_[i].rank_gate_up);
          factor_[1][i] = slot.shrink_down + run_[i].expert * slot.shrink_down_stride +
                          index * down_shrink_tile_bytes(run_[i].rank_down);
          scaling_[i] = slot.scaling_down;
        } else {
          factor_[0][i] = slot.expand_down + run_[i].expert * slot.expand_down_stride +
                          index * expand_tile_bytes(run_[i].rank_down);
        }
      }
      expand_cells += rank_steps(Config::kGateUp ? run_[i].rank_gate_up : run_[i].rank_down);
      down_cells += rank_steps(run_[i].rank_down);
    }
    num_expand_cells_ = __reduce_add_sync(0xffffffffu, expand_cells);
    num_down_cells_ = Config::kGateUp ? __reduce_add_sync(0xffffffffu, down_cells) : 0;
  }

  // Shrink items come before all weight tiles on every CTA, so this ends.
  __device__ void wait_for_shrink() {
#pragma unroll
    for (int i = 0; i < kRunsPerLane; ++i) {
      if (run_[i].rank_gate_up == 0) continue;
      while (load_acquire(p_.workspace.run_ready + run_[i].ready_index) < run_[i].ready_count) {
      }
    }
    __syncwarp();
  }

  // Rank step by rank step, the factors of the runs that have it.
  template <int kCells, int kStepBytes>
  __device__ void factors(const MoeTokenTile& tile, int num_cells, bool down, int which) {
    const int rank0 = down ? run_[0].rank_down : run_[0].rank_gate_up;
    const int rank1 = down ? run_[1].rank_down : run_[1].rank_gate_up;
    const int max_rank = __reduce_max_sync(0xffffffffu, max(rank0, rank1));
    int cell = 0;
#pragma unroll 1
    for (int step = 0; 16 * step < max_rank; ++step) {
      if constexpr (!Config::kGateUp) {
        // Consumers look for the step's v before its first cell.
        if (cell > 0) close_cells(&cell);
        const int bytes = tile.num_tokens * v_row_bytes(p_.sizes);
        open(bytes);
        if (lane_ == 0) ring_.header().num_cells = 0;
        finish_stage(0, reinterpret_cast<const uint8_t*>(v_of(p_, step, tile.first_row)), bytes);
      }
#pragma unroll 1
      for (int r = 0; r < tile.num_runs; ++r) {
        const int from = r % 32;
        const bool second = r >= 32;
        const int rank = __shfl_sync(0xffffffffu, second ? rank1 : rank0, from);
        if (16 * step >= rank) continue;
        const int begin = __shfl_sync(0xffffffffu, second ? run_[1].begin : run_[0].begin, from);
        const int end = __shfl_sync(0xffffffffu, second ? run_[1].end : run_[0].end, from);
        const float scaling = __shfl_sync(0xffffffffu, second ? scaling_[1] : scaling_[0], from);
        const auto mine =
            reinterpret_cast<uint64_t>(second ? factor_[which][1] : factor_[which][0]);
        const auto factor = reinterpret_cast<const uint8_t*>(__shfl_sync(0xffffffffu, mine, from));
        if (cell == 0) open(min(kCells, num_cells) * kStepBytes);
        if (lane_ == 0) {
          const bool half = step_width(rank, step) == 8;
          const uint32_t bytes = half ? kStepBytes / 2 : kStepBytes;
          StageHeader& header = ring_.header();
          header.cells[cell] = {static_cast<int16_t>(begin), static_cast<int16_t>(end),
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
    // The factors are on their way by now.
    if (!u_is_ready_) wait_for_shrink();
    u_is_ready_ = true;
    if (lane_ == 0) {
      ring_.header().num_cells = *cell;
      mbarrier_arrive(ring_.full());
    }
    __syncwarp();
    *cell = 0;
  }

  const MoeLayerParams& p_;
  GemmShared<Config>& shared_;
  RingWriter<Config> ring_;
  int lane_;
  MoeRun run_[kRunsPerLane];
  const uint8_t* factor_[2][kRunsPerLane];  // expand, down shrink
  float scaling_[kRunsPerLane];
  int num_expand_cells_ = 0;
  int num_down_cells_ = 0;
  bool results_ready_ = Config::kGateUp;
  bool u_is_ready_ = true;
  uint8_t* pending_to_ = nullptr;
  const uint8_t* pending_from_ = nullptr;
  int pending_bytes_ = 0;
};

// While routing is decided and memory idles: weights into L2 that will be needed for certain (the
// shared expert's) or most likely (num_experts routed experts' gate_up, in the order of the tiles).
__device__ __forceinline__ void prefetch_experts(const MoeSizes& s, const MoeWeights& weights,
                                                 int num_experts) {
  constexpr int kChunk = 16 * 1024;
  const auto slice = [&](const uint8_t* begin, int64_t bytes) {
    for (int64_t at = int64_t{blockIdx.x} * kChunk; at < bytes; at += int64_t{gridDim.x} * kChunk)
      bulk_prefetch_l2(begin + at, static_cast<uint32_t>(min(int64_t{kChunk}, bytes - at)));
  };
  const int64_t gate_up =
      int64_t{s.moe_intermediate_size / 64} * weight_rows_bytes(s.hidden_size / 128);
  const int64_t down =
      int64_t{s.hidden_size / 128} * weight_rows_bytes(s.moe_intermediate_size / 128);
  if (s.num_shared_experts > 0) {
    slice(weights.gate_up + s.num_experts * gate_up, gate_up);
    slice(weights.down + s.num_experts * down, down);
  }
  slice(weights.gate_up, num_experts * gate_up);
}

// --- consumers: one warpgroup ---

template <class Config>
class Consumer {
 public:
  static constexpr int kColumnTiles = Config::kColumnTiles;

  __device__ Consumer(const MoeLayerParams& p, GemmShared<Config>& shared, int warp, int lane)
      : p_(p),
        shared_(shared),
        ring_{shared},
        warp_(warp),
        lane_(lane),
        row_(lane / 4),
        column_(2 * (lane % 4)) {}

  // u[token, row of A] = scaling * sum_k A[row, k] x[token, k], 16 rows a warp.
  __device__ void shrink() {
    float d[kColumnTiles][4] = {};
    ring_.wait_full();
    const StageHeader header = ring_.header();
    const int rows = header.num_slab_rows, hidden = p_.sizes.hidden_size;
    const int depth = shrink_depth<Config>(rows, header.num_tokens);
    const int my_rows = min(16, rows - 16 * warp_);
#pragma unroll 1
    for (int k = 0; k < hidden; k += depth) {
      if (k > 0) ring_.wait_full();
      if (my_rows > 0) {
        const uint8_t* a = ring_.data() + warp_ * 512 + lane_ * (my_rows > 8 ? 16 : 8);
        uint32_t b = shared_address(ring_.data() + 2 * depth * rows +
                                    lane_ % 8 * shrink_x_stride(depth) + lane_ / 8 % 2 * 16);
#pragma unroll 4
        for (int steps = min(depth, hidden - k) / 16; steps > 0; --steps) {
          const uint4 fragment = load_fragment<1>(a, my_rows > 8);
#pragma unroll
          for (int j = 0; j < kColumnTiles; ++j) {
            if (8 * j >= header.num_tokens) break;
            const uint2 x = ldmatrix_x2(b + j * 8 * shrink_x_stride(depth));
            mma_m16n8k16(d[j], fragment, x.x, x.y);
          }
          a += 32 * rows;
          b += 32;
        }
      }
      ring_.release(lane_);
    }
    if (my_rows <= 0) return;
    const MoeWorkspace& w = p_.workspace;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = 8 * j + column_ + i % 2, in_tile = row_ + i / 2 * 8;
        if (n >= header.num_tokens || in_tile >= my_rows) continue;
        const int r = 64 * header.index + 16 * warp_ + in_tile;
        __nv_bfloat16* u =
            reinterpret_cast<__nv_bfloat16*>(w.u) + int64_t{header.first_row + n} * w.u_stride;
        if (header.one_a || r < header.rank) u[r] = __float2bfloat16(d[j][i] * header.scaling_gate);
        if (header.one_a || r >= header.rank) {
          u[w.u_stride / 2 + r - (header.one_a ? 0 : header.rank)] =
              __float2bfloat16(d[j][i] * header.scaling_up);
        }
      }
    }
    __threadfence();
    __syncwarp();
    if (lane_ == 0) atomicAdd(w.run_ready + header.ready_index, 1);
  }

  __device__ void weight_tile() {
    const int depth =
        (Config::kGateUp ? p_.sizes.hidden_size : p_.sizes.moe_intermediate_size) / 128;
    ring_.wait_full();
    first_row_ = ring_.header().first_row;
    num_tokens_ = ring_.header().num_tokens;
    index_ = ring_.header().index;
    // The scales of all stages come with the first; lane i keeps those of stages i and i + 32.
    const float2* const w_scales =
        reinterpret_cast<const float2*>(ring_.data() + Config::kScaleOffset);
    const float2 my_scales[2] = {w_scales[min(lane_, depth - 1)],
                                 w_scales[min(lane_ + 32, depth - 1)]};
    int u_row[kColumnTiles];
    // Early where there are registers to keep them through the main loop.
    constexpr bool kEarly = Config::kTokens <= 32;
    if constexpr (Config::kLora && Config::kGateUp && kEarly) load_u_rows(u_row);
    int num_expand_cells = 0, num_down_cells = 0;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum_[m][j][i] = 0.0f;
      }
    }
#pragma unroll 1
    for (int k = 0; k < depth; ++k) {
      if (k > 0) ring_.wait_full();
      if (Config::kLora && k == depth - 1) {
        num_expand_cells = ring_.header().num_expand_cells;
        num_down_cells = ring_.header().num_down_cells;
      }
      const float2 from = k < 32 ? my_scales[0] : my_scales[1];
      multiply_stage(make_float2(__shfl_sync(0xffffffffu, from.x, k % 32),
                                 __shfl_sync(0xffffffffu, from.y, k % 32)));
      ring_.release(lane_);
    }
    if constexpr (Config::kLora && Config::kGateUp && !kEarly) load_u_rows(u_row);
    if constexpr (Config::kLora) expand(num_expand_cells, u_row);
    if constexpr (Config::kGateUp) {
      swiglu();
      store_h();
      if constexpr (Config::kLora) down_shrink(num_down_cells);
    } else {
      store_pairs();
    }
  }

 private:
  // One lane's part of a packed 16 x 16 fragment; the half form has 8 rows (kHalfOf = 1) or 8
  // columns (kHalfOf = 2) and half the bytes.
  template <int kHalfOf>
  __device__ __forceinline__ static uint4 load_fragment(const uint8_t* at, bool whole) {
    if (whole) return *reinterpret_cast<const uint4*>(at);
    const uint2 half = *reinterpret_cast<const uint2*>(at);
    if constexpr (kHalfOf == 1) return make_uint4(half.x, 0, half.y, 0);
    return make_uint4(half.x, half.y, 0, 0);
  }

  // sum_ += weights * activations of one stage, in float for each scale group: the FP8 tensor
  // accumulator keeps too few bits for a longer sum.
  __device__ __forceinline__ void multiply_stage(float2 w_scale) {
    constexpr int kGroups = Config::kScaleGroups, kSteps = 4 / kGroups;
    const uint8_t* const data = ring_.data();
    const int tokens8 = (num_tokens_ + 7) / 8 * 8;
    const int scale_bytes = activation_image(0, num_tokens_, 1, kGroups).scale_bytes;
    const float* const x_scale =
        reinterpret_cast<const float*>(data + Config::kRowsOffset - scale_bytes);
    const uint64_t a = wgmma_descriptor(data), b = wgmma_descriptor(data + Config::kRowsOffset);
    // Two parts, of which one is added up while the other multiplies: the halves of the rows in
    // gate_up, the scale groups in the down GEMM.
    constexpr int kHalves = Config::kGateUp ? 1 : 2;
    float part[2][kHalves][kColumnTiles * 4];
    const auto multiply = [&](int q) {
      wgmma_fence();
#pragma unroll
      for (int m = 0; m < kHalves; ++m) {
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          const uint64_t step = ((Config::kGateUp ? 0 : q * kSteps) + s) * kWgmmaStepK32;
          const int half = Config::kGateUp ? q : m;
          wgmma_m64k32(part[q][m], a + half * kWgmmaStep64Rows + step, b + step, s > 0);
        }
      }
      wgmma_commit();
    };
    const auto add = [&](int q) {
      const int g = Config::kGateUp ? 0 : q;
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        if (8 * j >= num_tokens_) break;
        const float2 x = *reinterpret_cast<const float2*>(x_scale + g * tokens8 + 8 * j + column_);
        // The upper rows of a fragment are up's in gate_up, which has its own scale.
        const float scale[4] = {w_scale.x * x.x, w_scale.x * x.y, w_scale.y * x.x, w_scale.y * x.y};
#pragma unroll
        for (int m = 0; m < kHalves; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i)
            sum_[Config::kGateUp ? q : m][j][i] += part[q][m][4 * j + i] * scale[i];
        }
      }
    };
    if constexpr (Config::kTokens <= 32) {
      multiply(0);
      multiply(1);
      wgmma_wait<1>();
      add(0);
      wgmma_wait<0>();
      add(1);
    } else {
      // Both would not fit in registers.
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        multiply(q);
        wgmma_wait<0>();
        add(q);
      }
    }
  }

  // sum_ += B u (gate_up) or B v (down): every run's B times its tokens' columns, the others zero.
  __device__ __forceinline__ void expand(int total, const int* u_row) {
    uint32_t gate[kColumnTiles][2], up[kColumnTiles][2];
    int loaded_step = -1, num_cells = 0;
#pragma unroll 1
    for (int done = 0; done < total; done += num_cells) {
      if constexpr (!Config::kGateUp) {
        ring_.wait_full();
        if (ring_.header().num_cells == 0) load_v(gate);
      }
      ring_.wait_full();
      num_cells = ring_.header().num_cells;
#pragma unroll 1
      for (int c = 0; c < num_cells; ++c) {
        const FactorCell cell = ring_.header().cells[c];
        if constexpr (Config::kGateUp) {
          if (cell.step != loaded_step) load_u(u_row, cell.step, gate, up);
          loaded_step = cell.step;
        }
        const bool whole = !cell.is_half;
        const int bytes = whole ? 16 : 8;
        const uint8_t* at = ring_.data() + c * kExpandStepBytes + (warp_ * 32 + lane_) * bytes;
        const uint4 b0 = load_fragment<2>(at, whole);
        const uint4 b1 = load_fragment<2>(at + 128 * bytes, whole);
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          if (8 * j >= cell.end || 8 * j + 8 <= cell.begin) continue;
          const int n = 8 * j + row_;
          const bool mine = n >= cell.begin && n < cell.end;
          const auto pick = [&](uint32_t value, bool has) { return mine && has ? value : 0u; };
          const uint32_t g0 = pick(gate[j][0], true), g1 = pick(gate[j][1], whole);
          if constexpr (Config::kGateUp) {
            const uint32_t u0 = pick(up[j][0], true), u1 = pick(up[j][1], whole);
            mma_m16n8k16(sum_[0][j], make_uint4(b0.x, 0, b0.z, 0), g0, g1);
            mma_m16n8k16(sum_[1][j], make_uint4(b1.x, 0, b1.z, 0), g0, g1);
            mma_m16n8k16(sum_[0][j], make_uint4(0, b0.y, 0, b0.w), u0, u1);
            mma_m16n8k16(sum_[1][j], make_uint4(0, b1.y, 0, b1.w), u0, u1);
          } else {
            mma_m16n8k16(sum_[0][j], b0, g0, g1);
            mma_m16n8k16(sum_[1][j], b1, g0, g1);
          }
        }
      }
      ring_.release(lane_);
    }
  }

  __device__ __forceinline__ void load_u_rows(int (&u_row)[kColumnTiles]) {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      u_row[j] = 8 * j + row_ < num_tokens_
                     ? __ldcg(p_.workspace.u_row_of_row + first_row_ + 8 * j + row_)
                     : 0;
    }
  }

  __device__ __forceinline__ void load_u(const int* u_row, int step,
                                         uint32_t (&gate)[kColumnTiles][2],
                                         uint32_t (&up)[kColumnTiles][2]) {
    const MoeWorkspace& w = p_.workspace;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
      const Bf16* u = w.u + int64_t{u_row[j]} * w.u_stride + 16 * step + column_;
      const auto load = [&](int at) {
        return __ldcg(reinterpret_cast<const unsigned int*>(u + at));
      };
      gate[j][0] = load(0), gate[j][1] = load(8);
      up[j][0] = load(w.u_stride / 2), up[j][1] = load(w.u_stride / 2 + 8);
    }
  }

  // The stage of a step's v; the partial sums of the gate_up tiles are added in their order.
  __device__ __forceinline__ void load_v(uint32_t (&v)[kColumnTiles][2]) {
    const int num_parts = p_.sizes.moe_intermediate_size / 64;
    ring_.wait_full();
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
      const int n = min(8 * j + row_, num_tokens_ - 1);
      const float* at = reinterpret_cast<const float*>(ring_.data()) + n * num_parts * 16 + column_;
      float2 low = {}, high = {};
#pragma unroll 4
      for (int i = 0; i < num_parts; ++i, at += 16) {
        const float2 a = *reinterpret_cast<const float2*>(at);
        const float2 b = *reinterpret_cast<const float2*>(at + 8);
        low.x += a.x, low.y += a.y, high.x += b.x, high.y += b.y;
      }
      v[j][0] = pack_bf16(low.x, low.y), v[j][1] = pack_bf16(high.x, high.y);
    }
    ring_.release(lane_);
  }

  // h = silu(gate) * up, as BF16 [tokens, 64] into shared memory.
  __device__ __forceinline__ void swiglu() {
    consumer_barrier();  // the tile before has been read
    const uint32_t at = shared_address(shared_.scratch) + lane_ % 8 * Config::kHStride +
                        lane_ / 8 % 2 * 64 + warp_ * 16;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
      uint32_t h[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const float(&s)[4] = sum_[m][j];
        const auto silu = [](float x) { return __fdividef(x, 1.0f + __expf(-x)); };
        h[m] = pack_bf16(silu(s[0]) * s[2], silu(s[1]) * s[3]);
      }
      stmatrix_x2_trans(at + j * 8 * Config::kHStride, h[0], h[1]);
    }
    consumer_barrier();
  }

  // q(h) into the activation image of the down GEMM: this tile's 64 features of 128.
  __device__ __forceinline__ void store_h() {
    const int tokens8 = (num_tokens_ + 7) / 8 * 8, half = index_ % 2;
    const ActivationImage image = activation_image(
        first_row_, num_tokens_, p_.sizes.moe_intermediate_size / 128, /*scales_per_row=*/2);
    uint8_t* const out = p_.workspace.h_image + image.offset(index_ / 2);
    for (int i = warp_ * 32 + lane_; i < tokens8 * 16; i += Config::kConsumers) {
      const int n = i / 16, feature = i % 16 * 4;
      const uint2 four =
          *reinterpret_cast<const uint2*>(shared_.scratch + n * Config::kHStride + 2 * feature);
      const float2 low = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.x));
      const float2 high = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&four.y));
      float amax = fmaxf(fmaxf(fabsf(low.x), fabsf(low.y)), fmaxf(fabsf(high.x), fabsf(high.y)));
      for (int step = 8; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
      const float h_scale = e4m3_scale(amax), inverse = 1.0f / h_scale;
      *reinterpret_cast<__nv_fp8x4_e4m3*>(out + image.scale_bytes +
                                          swizzled(n, 64 * half + feature)) =
          __nv_fp8x4_e4m3(
              make_float4(low.x * inverse, low.y * inverse, high.x * inverse, high.y * inverse));
      if (feature == 0) reinterpret_cast<float*>(out)[half * tokens8 + n] = h_scale;
    }
  }

  // v[token, tile, rank] = scaling * sum over the tile's features of A[rank, f] h[token, f]; the
  // warps take cells in turn.
  __device__ __forceinline__ void down_shrink(int total) {
    const uint32_t h =
        shared_address(shared_.scratch) + lane_ % 8 * Config::kHStride + lane_ / 8 % 2 * 16;
    int num_cells = 0;
#pragma unroll 1
    for (int done = 0; done < total; done += num_cells) {
      ring_.wait_full();
      num_cells = ring_.header().num_cells;
#pragma unroll 1
      for (int c = warp_; c < num_cells; c += 4) {
        const FactorCell cell = ring_.header().cells[c];
        const float scaling = ring_.header().scaling[c];
        const bool whole = !cell.is_half;
        const uint8_t* at = ring_.data() + c * kDownShrinkStepBytes + lane_ * (whole ? 16 : 8);
        uint4 a[4];
#pragma unroll
        for (int s = 0; s < 4; ++s) a[s] = load_fragment<1>(at + s * (whole ? 512 : 256), whole);
#pragma unroll
        for (int j = 0; j < kColumnTiles; ++j) {
          if (8 * j >= cell.end || 8 * j + 8 <= cell.begin) continue;
          float d[4] = {};
#pragma unroll
          for (int s = 0; s < 4; ++s) {
            const uint2 b = ldmatrix_x2(h + j * 8 * Config::kHStride + 32 * s);
            mma_m16n8k16(d, a[s], b.x, b.y);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int n = 8 * j + column_ + i % 2;
            if (n < cell.begin || n >= cell.end || (i >= 2 && !whole)) continue;
            v_of(p_, cell.step, first_row_ + n)[16 * index_ + row_ + i / 2 * 8] = d[i] * scaling;
          }
        }
      }
      ring_.release(lane_);
    }
  }

  // 128 outputs of each pair, as BF16.
  __device__ __forceinline__ void store_pairs() {
    uint8_t* const scratch = shared_.scratch + warp_ * 8 * Config::kOutStride;
    const uint32_t in = shared_address(scratch) + lane_ % 8 * Config::kOutStride + lane_ / 8 * 16;
    const uint8_t* const out = scratch + lane_ / 4 * Config::kOutStride + lane_ % 4 * 16;
    const int column = 128 * index_ + lane_ / 2 % 2 * 64 + warp_ * 16 + lane_ % 2 * 8;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (8 * j >= num_tokens_) break;
      const float(&s0)[4] = sum_[0][j];
      const float(&s1)[4] = sum_[1][j];
      __syncwarp();
      stmatrix_x4_trans(in, pack_bf16(s0[0], s0[1]), pack_bf16(s0[2], s0[3]),
                        pack_bf16(s1[0], s1[1]), pack_bf16(s1[2], s1[3]));
      __syncwarp();
      const int n = 8 * j + lane_ / 4;
      if (n < num_tokens_) {
        Bf16* to = p_.workspace.pair_out + int64_t{first_row_ + n} * p_.sizes.hidden_size + column;
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(out);
      }
    }
  }

  const MoeLayerParams& p_;
  GemmShared<Config>& shared_;
  RingReader<Config> ring_;
  int warp_, lane_;
  int row_, column_;  // of a lane in a fragment
  int first_row_ = 0, num_tokens_ = 0, index_ = 0;
  float sum_[2][kColumnTiles][4];
};

// --- the kernel ---

template <class Config>
__global__ __launch_bounds__(Config::kThreads, Config::kCtasPerSm) void moe_fp8_gemm_kernel(
    const __grid_constant__ MoeLayerParams p, int num_prefetched_experts) {
  // --- who am I; shared memory and barriers ---
  extern __shared__ __align__(1024) uint8_t dynamic_shared[];
  auto& shared = *reinterpret_cast<GemmShared<Config>*>(dynamic_shared);
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Config::kStages; ++i) {
      mbarrier_init(&shared.full[i], 1);
      mbarrier_init(&shared.empty[i], Config::kConsumers / 32);
    }
    mbarrier_init_fence();
  }
  __syncthreads();

  const MoeWorkspace& w = p.workspace;
  const int tiles_per_expert =
      Config::kGateUp ? p.sizes.moe_intermediate_size / 64 : p.sizes.hidden_size / 128;
  if constexpr (Config::kGateUp) {
    // --- while routing is decided ---
    if (warp == Config::kConsumers / 32 && lane == 0)
      prefetch_experts(p.sizes, p.weights, num_prefetched_experts);
    wait_for_previous_kernel();
    let_next_kernel_start();
  }
  // gate_up lets the down kernel start only when routing is complete: its lists are there before
  // gate_up has finished, and only h and v are waited for.
  const int num_units = __ldcg(&w.counts->num_tiles) * tiles_per_expert;
  const int num_items = Config::kGateUp && Config::kLora ? __ldcg(&w.counts->num_shrink_items) : 0;
  // CTAs with fewer units take the first shrink items.
  const int first_item = gridDim.x - 1 - blockIdx.x;

  if (warp == Config::kConsumers / 32) {
    // --- producer ---
    Producer<Config> producer(p, shared, lane);
    if constexpr (Config::kGateUp) {
      fence_proxy_async();
      if constexpr (Config::kLora) {
#pragma unroll 1
        for (int i = first_item; i < num_items; i += gridDim.x)
          producer.shrink(load_entry(w.shrink_items + i));
      }
    }
    // Read along with the counts, so it may not exist; it lies in the workspace all the same.
    MoeTokenTile tile = load_entry(w.tiles + blockIdx.x / tiles_per_expert);
#pragma unroll 1
    for (int unit = blockIdx.x; unit < num_units; unit += gridDim.x) {
      // The next tile's entry comes while this one's weights are on their way.
      const MoeTokenTile current = tile;
      if (unit + static_cast<int>(gridDim.x) < num_units)
        tile = load_entry(w.tiles + (unit + gridDim.x) / tiles_per_expert);
      producer.weight_tile(current, unit % tiles_per_expert);
    }
    producer.finish();
  } else {
    // --- consumers ---
    if constexpr (!Config::kGateUp) {
      wait_for_previous_kernel();
      let_next_kernel_start();
      // For the routing of the next layer, which counts from zero.
      if (blockIdx.x == 0 && threadIdx.x == 0) w.counts->arrived = w.counts->num_shrink_items = 0;
    }
    Consumer<Config> consumer(p, shared, warp, lane);
    if constexpr (Config::kGateUp && Config::kLora) {
#pragma unroll 1
      for (int i = first_item; i < num_items; i += gridDim.x) consumer.shrink();
    }
#pragma unroll 1
    for (int unit = blockIdx.x; unit < num_units; unit += gridDim.x) consumer.weight_tile();
  }
}

}  // namespace braid::kernels

#pragma once

// The warps that load. In down one: weights for its CTA, and half of the tokens for both of the
// cluster. In gate_up four: they gather the CTA's tokens from the rows of x, the first loads
// weights besides. The first CTA's first says what is next.

#include <cstdint>

#include "kernels/common/async_copy.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/named_barrier.cuh"
#include "kernels/moe_gemm/large_lora.cuh"
#include "kernels/moe_gemm/sm90_large_shared.cuh"
#include "kernels/moe_gemm/sm90_large_v.cuh"
#include "kernels/moe_routing/choose_experts.cuh"

namespace braid::kernels {

// Row tiles of a matrix, and groups of four: what a cluster does for an entry of the list at a
// time, or half of it.
template <class Config>
__device__ __forceinline__ int large_row_tiles(const MoeSizes& s) {
  return Config::kGateUp ? s.moe_intermediate_size / 64 : s.hidden_size / 128;
}

template <class Config>
class LargeProducer {
 public:
  // `warp` is 0 in down.
  __device__ LargeProducer(const MoeLayerParams& p, LargeShared<Config>& shared, int warp, int lane)
      : p_(p),
        shared_(shared),
        warp_(warp),
        lane_(lane),
        rank_(cluster_rank()),
        depth_((Config::kGateUp ? p.sizes.hidden_size : p.sizes.moe_intermediate_size) / 128),
        row_tiles_(large_row_tiles<Config>(p.sizes)) {}

  __device__ __forceinline__ void run() {
    const bool chooses = rank_ == 0 && warp_ == 0;
    if (chooses) begin_choice();
#pragma unroll 1
    while (true) {
      const Unit unit = chooses ? choose() : read_letter();
      if (unit.num_tokens == 0) break;
      load_unit(unit);
      ++next_unit_;
    }
    if (warp_ > 0) return;
    wait_empty();
    if (lane_ == 0) {
      shared_.unit[next_unit_ % Config::kUnits] = {};
      mbarrier_arrive_as(&shared_.ring.full[stage()], 1 + Config::kGatherArrivals);
    }
    shared_.ring.wait_all_released(next_stage_);
  }

 private:
  using Unit = LargeUnit<Config::kGateUp>;

  __device__ __forceinline__ int per_entry() const { return (row_tiles_ + 3) / 4; }

  __device__ __forceinline__ int claim() const {
    MoeCounts* const counts = p_.workspace.counts;
    return atomicAdd(Config::kGateUp ? &counts->next_gate_up : &counts->next_down, 1);
  }
  // A lane's one of the four integers of an entry.
  __device__ __forceinline__ int entry_at(int i) const {
    if (i >= num_units_) return 0;
    const auto* const entry =
        reinterpret_cast<const int32_t*>(p_.workspace.other_tiles + i / per_entry());
    return __ldcg(entry + lane_ % 4);
  }

  __device__ __forceinline__ void begin_choice() {
    num_units_ = __ldcg(&p_.workspace.counts->num_other_tiles) * per_entry();
    unit_ = blockIdx.x / Config::kCluster;
    entry_ = entry_at(unit_);
    if (lane_ == 0) claimed_ = claim();
  }
  // What this cluster does next; it tells the other CTA, and in gate_up the warps beside it.
  __device__ __forceinline__ Unit choose() {
    Unit unit = {};
    if (unit_ < num_units_) {
      unit = {
          .first_row = __shfl_sync(kAllLanes, entry_, 1),
          .num_tokens = __shfl_sync(kAllLanes, entry_, 2),
          .expert_group = __shfl_sync(kAllLanes, entry_, 0) + Unit::kUnit * (unit_ % per_entry()),
          .half_runs = __shfl_sync(kAllLanes, entry_, 3)};
      // On their way while this unit is loaded.
      unit_ = gridDim.x / Config::kCluster + __shfl_sync(kAllLanes, claimed_, 0);
      entry_ = entry_at(unit_);
      if (lane_ == 0 && unit_ < num_units_) claimed_ = claim();
    }
    tell(unit);
    return unit;
  }

  // To the other warps that load: a lane tells those of a CTA.
  __device__ __forceinline__ void tell(const Unit& unit) {
    if (lane_ < kPairCtas && (Config::kGateUp || lane_ > 0)) {
      uint64_t* const full = &shared_.mail_full[letter()];
      arrive_expect_in_cta(full, lane_, sizeof(Unit));
      store_to_cta(reinterpret_cast<float4*>(&shared_.mail[letter()]),
                   *reinterpret_cast<const float4*>(&unit), full, lane_);
    }
    ++next_letter_;
  }
  __device__ __forceinline__ Unit read_letter() {
    mbarrier_wait(&shared_.mail_full[letter()], next_letter_ / kLetters % 2);
    const Unit unit = shared_.mail[letter()];
    ++next_letter_;
    return unit;
  }

  __device__ __forceinline__ int stage() const { return next_stage_ % Config::kStages; }
  __device__ __forceinline__ int letter() const { return next_letter_ % kLetters; }
  __device__ __forceinline__ void wait_empty() { shared_.ring.wait_empty(next_stage_); }
  // What a lane copies in every stage of a unit, or in the first.
  struct Copy {
    const uint8_t* from = nullptr;
    int32_t step = 0;  // from one depth to the next; 0: only in the first
    uint32_t bytes = 0;
    uint32_t to = 0;       // in the first stage of the ring
    uint32_t to_step = 0;  // from one stage of the ring to the next
  };

  // Lane 0: half of the tokens' rows; 1: their scales; 2 and 3: weights; 4 and 5: their scales. In
  // gate_up weights alone.
  __device__ __forceinline__ Copy copy_of_lane(const Unit& unit, int num_tiles) const {
    Copy copy;
    if (lane_ < 2) {
      if constexpr (Config::kGateUp) return copy;
      const ActivationImage image =
          activation_image(unit.first_row, unit.num_tokens, depth_, Config::kScaleGroups);
      const int32_t row_bytes = image.depth_bytes - image.scale_bytes;
      const int32_t first_half = (row_bytes / 1024 + 1) / 2 * 1024;
      copy.from = p_.workspace.h_image + image.begin;
      copy.step = image.depth_bytes;
      if (lane_ == 1) {
        copy.bytes = rank_ == 0 ? image.scale_bytes : 0;
        copy.to = shared_address(shared_.token_scales);
        copy.to_step = Config::kTokenScaleBytes;
        return copy;
      }
      copy.from += image.scale_bytes + rank_ * first_half;
      copy.bytes = rank_ == 0 ? first_half : row_bytes - first_half;
      copy.to =
          shared_address(shared_.stages) + unit.rows() * kWeightTileBytes + rank_ * first_half;
      copy.to_step = Config::kStageBytes;
      return copy;
    }
    const bool is_scale = lane_ >= 4;
    const int i = lane_ % 2;
    if (lane_ >= 6 || i >= num_tiles || (both_have_rows(unit) && i != rank_)) return copy;
    copy.from = (Config::kGateUp ? p_.weights.gate_up : p_.weights.down) +
                (int64_t{unit.expert()} * row_tiles_ + unit.row_tile(rank_) + i) *
                    weight_rows_bytes(depth_) +
                (is_scale ? depth_ * kWeightTileBytes : 0);
    copy.step = is_scale ? 0 : kWeightTileBytes;
    copy.bytes = is_scale ? weight_scale_bytes(depth_) : kWeightTileBytes;
    copy.to = is_scale ? shared_address(shared_.weight_scales[next_unit_ % Config::kUnits][i])
                       : shared_address(shared_.stages) + i * kWeightTileBytes;
    copy.to_step = is_scale ? 0 : Config::kStageBytes;
    return copy;
  }

  // Each CTA loads one of the two row tiles, for both.
  __device__ __forceinline__ static bool both_have_rows(const Unit& unit) {
    return Config::kGateUp && !unit.is_small();
  }

  __device__ __forceinline__ void load_unit(const Unit& unit) {
    // There may be row tiles for some warpgroups only.
    const int num_tiles = max(0, min(unit.rows(), row_tiles_ - unit.row_tile(rank_)));
    Copy copy = copy_of_lane(unit, num_tiles);
    [[maybe_unused]] Rows rows;
    if constexpr (Config::kGateUp) rows = rows_of_thread(unit);
    if constexpr (Config::kLora) {
      if (warp_ == 0) ask_for_runs(unit, 0);
    }
    const uint32_t bytes =
        num_tiles * kWeightTileBytes +
        (Config::kGateUp
             ? 0
             : activation_image(0, unit.num_tokens, 1, Config::kScaleGroups).depth_bytes);
    const bool to_both = Config::kGateUp ? both_have_rows(unit) : lane_ < 2;
    // A small tile is likely to be its expert's only one.
    const CachePolicy policy =
        to_both || !unit.is_small() ? CachePolicy::kEvictLast : CachePolicy::kEvictFirst;
#pragma unroll 1
    for (int k = 0; k < depth_; ++k) {
      wait_empty();
      uint64_t* const full = &shared_.ring.full[stage()];
      if (warp_ == 0) {
        if (lane_ == 0) {
          if (k == 0) shared_.unit[next_unit_ % Config::kUnits] = unit;
          mbarrier_arrive_expect(full,
                                 bytes + (k == 0 ? num_tiles * weight_scale_bytes(depth_) : 0));
        }
        if (copy.bytes > 0) {
          const uint32_t to = copy.to + stage() * copy.to_step;
          if (to_both) {
            bulk_copy_to_ctas(to, copy.from, copy.bytes, full, kBoth, policy);
          } else {
            bulk_copy_to_shared(to, copy.from, copy.bytes, full, policy);
          }
          copy.from += copy.step;
          if (copy.step == 0) copy.bytes = 0;
        }
        __syncwarp();
      }
      if constexpr (Config::kGateUp) {
        gather(rows, k);
        async_copy_arrive(full);
      }
      ++next_stage_;
    }
    if constexpr (Config::kLora) {
      if (unit.num_runs() == 0) return;
      if (warp_ == 0) {
        load_factors<Config::kGateUp ? LargeFactor::kExpandGateUp : LargeFactor::kExpandDown>(
            unit, num_tiles);
        if constexpr (Config::kGateUp) load_factors<LargeFactor::kShrinkDown>(unit, num_tiles);
      }
      if constexpr (Config::kGateUp) {
        uint32_t& after = shared_.stage_after[next_unit_ % Config::kUnits];
        if (warp_ == 0 && lane_ == 0) after = next_stage_;
        barrier_wait<Config::kLoaderThreads>(kLoaderBarrier);
        next_stage_ = after;
      }
    }
  }

  // What a thread of four warps copies in every stage of gate_up: 16 bytes of every 16th of the
  // CTA's tokens, and the scale of one.
  struct Rows {
    uint32_t code[kLargeHalfTokens / 16];  // where they lie, in the first stage
    uint32_t scale;
    int32_t num_codes;
    bool has_scale;
  };
  __device__ __forceinline__ Rows rows_of_thread(const Unit& unit) const {
    const int thread = 32 * warp_ + lane_, first = unit.first_token(rank_);
    const int num_tokens = min(kLargeHalfTokens, unit.num_tokens - first);
    const int32_t* const token_of = p_.workspace.token_of_row + unit.first_row + first;
    Rows rows;
    rows.num_codes = (num_tokens - thread / 8 + 15) / 16;
    rows.has_scale = thread < num_tokens;
    rows.scale = rows.has_scale ? __ldcg(token_of + thread) * depth_ : 0;
#pragma unroll
    for (int i = 0; i < kLargeHalfTokens / 16; ++i) {
      rows.code[i] = i < rows.num_codes ? __ldcg(token_of + thread / 8 + 16 * i) * (128u * depth_) +
                                              thread % 8 * 16
                                        : 0;
    }
    return rows;
  }
  __device__ __forceinline__ void gather(const Rows& rows, int k) {
    const int thread = 32 * warp_ + lane_;
    const uint8_t* const codes = large_x_codes(p_) + 128 * k;
    const uint32_t to = shared_address(shared_.stages[stage()]) + 2 * kWeightTileBytes +
                        swizzled(thread / 8, thread % 8 * 16);
#pragma unroll
    for (int i = 0; i < kLargeHalfTokens / 16; ++i) {
      if (i < rows.num_codes)
        async_copy_16(to + i * 16 * 128, codes + rows.code[i], true, CachePolicy::kEvictLast);
    }
    if (rows.has_scale) {
      async_copy_4(shared_address(shared_.token_scales[stage()]) + 4 * thread,
                   large_x_scales(p_) + rows.scale + k);
    }
  }

  // Runs of a group of 32 into shared memory: asked for long before they are needed.
  __device__ __forceinline__ void ask_for_runs(const Unit& unit, int group) {
    constexpr int kPieces = sizeof(MoeLargeRun) / 16;
    const auto* const from =
        reinterpret_cast<const uint4*>(p_.workspace.large_runs + unit.first_row + 32 * group);
    const int pieces = min(32, unit.num_runs() - 32 * group) * kPieces;
    group_of_runs_ = group;
    __syncwarp();  // what lay there has been read
#pragma unroll 1
    for (int i = lane_; i < pieces; i += 32)
      async_copy_16(shared_address(shared_.runs) + 16 * i, from + i, true);
    async_copy_commit();
  }
  __device__ __forceinline__ void wait_for_runs(const Unit& unit, int group) {
    if (group_of_runs_ != group) ask_for_runs(unit, group);
    async_copy_wait<0>();
    __syncwarp();
  }

  // The stages of a factor: those of each step of ranks of 32 runs, then of the next 32. The last
  // one says so, and may be empty.
  template <LargeFactor kFactor>
  __device__ __forceinline__ void load_factors(const Unit& unit, int num_tiles) {
    const int num_groups = (unit.num_runs() + 31) / 32;
#pragma unroll 1
    for (int group = 0; group < num_groups; ++group) {
      wait_for_runs(unit, group);
      if constexpr (kFactor == LargeFactor::kExpandDown)
        wait_for_large_v(p_, unit.first_row, unit.num_tokens, lane_);
      const int rank =
          32 * group + lane_ < unit.num_runs() ? large_rank<kFactor>(shared_.runs[lane_]) : 0;
      const int num_steps =
          max(group == num_groups - 1 ? 1 : 0, rank_steps(__reduce_max_sync(kAllLanes, rank)));
#pragma unroll 1
      for (int step = 0; step < num_steps; ++step) {
        const unsigned has = __ballot_sync(kAllLanes, rank > 16 * step);
        const int num_cells = __popc(has), my_cell = __popc(has & ((1u << lane_) - 1));
        const int per_stage = Config::kFactors / unit.rows();
        int first = 0;
        do {
          load_factor_stage<kFactor>(
              unit, num_tiles, step, rank > 16 * step ? my_cell - first : -1,
              min(per_stage, num_cells - first),
              group == num_groups - 1 && step == num_steps - 1 && first + per_stage >= num_cells);
          first += per_stage;
        } while (first < num_cells);
      }
    }
  }

  // `my_cell` is where the lane's run comes in this stage, if it does.
  template <LargeFactor kFactor>
  __device__ __forceinline__ void load_factor_stage(const Unit& unit, int num_tiles, int step,
                                                    int my_cell, int num_cells, bool is_last) {
    constexpr bool kExpand = kFactor != LargeFactor::kShrinkDown;
    constexpr int kCellBytes = kExpand ? kExpandStepBytes : kDownShrinkStepBytes;
    const bool mine = my_cell >= 0 && my_cell < num_cells;
    const MoeLargeRun& run = shared_.runs[lane_];
    const int width = mine ? step_width(large_rank<kFactor>(run), step) : 0;
    const uint32_t factor_bytes = kCellBytes / 16 * width;
    const uint32_t rank_bytes = kExpand ? unit.num_tokens * Config::kRankBytes : 0;
    wait_empty();
    uint64_t* const full = &shared_.ring.full[stage()];
    LargeFactors<Config>& header = shared_.factors[stage()];
    if (mine) {
      header.cells[my_cell] = {
          .begin = run.begin, .end = run.end, .is_half = width < 16, .scaling = run.scaling_down};
    }
    const uint32_t bytes =
        rank_bytes + __reduce_add_sync(kAllLanes, mine ? num_tiles * factor_bytes : 0);
    if (lane_ == 0) {
      header.num_cells = num_cells, header.step = step, header.is_last = is_last;
      mbarrier_arrive_expect(full, bytes);
      if constexpr (Config::kGateUp) mbarrier_arrive_as(full, Config::kGatherArrivals);
      if constexpr (kExpand) {
        bulk_copy(shared_.stages[stage()],
                  Config::kGateUp ? large_u_of(p_, step, unit.first_row)
                                  : large_v_of(p_, step, unit.first_row),
                  rank_bytes, full, CachePolicy::kEvictLast);
      }
    }
    if (mine) {
      const uint8_t* const from =
          large_factor<kFactor>(run, unit.row_tile(rank_)) + int64_t{step} * kCellBytes;
      const int64_t from_step = large_factor<kFactor>(run, 1) - large_factor<kFactor>(run, 0);
      uint8_t* const to = shared_.stages[stage()] + (kExpand ? Config::kFactorsAt : 0);
#pragma unroll 1
      for (int i = 0; i < num_tiles; ++i) {
        bulk_copy(to + (my_cell * unit.rows() + i) * kCellBytes, from + i * from_step, factor_bytes,
                  full, CachePolicy::kEvictLast);
      }
    }
    __syncwarp();
    ++next_stage_;
  }

  static constexpr int kLetters = 2 * Config::kStages;
  static constexpr uint16_t kBoth = (1 << Config::kCluster) - 1;
  static constexpr int kLoaderBarrier = 1;

  const MoeLayerParams& p_;
  LargeShared<Config>& shared_;
  int warp_, lane_, rank_;
  int depth_, row_tiles_;
  uint32_t next_stage_ = 0;  // of all that there have been
  uint32_t next_unit_ = 0;
  uint32_t next_letter_ = 0;
  [[maybe_unused]] int group_of_runs_ = 0;
  // Of the cluster's first CTA: units in all, the next one and its entry, and what lane 0 has been
  // told to take then.
  int num_units_ = 0, unit_ = 0, entry_ = 0, claimed_ = 0;
};

}  // namespace braid::kernels

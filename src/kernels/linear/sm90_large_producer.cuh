#pragma once

// The warp that loads for the GEMM of large batches: weights for its CTA, and half of the tokens
// for both of the cluster; then the factors of the tokens' adapters.

#include "kernels/common/async_copy.cuh"
#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/cluster_copy.cuh"
#include "kernels/linear/sm90_large_shared.cuh"

namespace braid::kernels {

template <class Config>
class LinearLargeProducer {
 public:
  __device__ LinearLargeProducer(const LinearBf16Params& p, const LinearLargeGrid& grid,
                                 LinearLargeShared<Config>& shared, int lane)
      : p_(p), grid_(grid), shared_(shared), lane_(lane), rank_(cluster_rank()) {}

  __device__ __forceinline__ void run() {
    const int step = gridDim.x / kPairCtas;
    int i = blockIdx.x / kPairCtas;
    if constexpr (Config::kLora) {
      // Runs and slots of a unit come while the unit before it is loaded.
      int runs[kGroups], slots[kGroups], next_slots[kGroups];
      find_runs(i, runs);
      find_slots(runs, slots);
#pragma unroll 1
      for (; i < grid_.num_units; i += step) {
        const LinearLargeUnit unit(grid_, i);
        find_runs(i + step, runs);
        load_unit(unit);
        find_slots(runs, next_slots);
        // Tokens without adapter are behind the others.
        if (__shfl_sync(kAll, slots[0], 0) >= 0) load_factors(unit, slots);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) slots[g] = next_slots[g];
      }
    } else {
#pragma unroll 1
      for (; i < grid_.num_units; i += step) load_unit(LinearLargeUnit(grid_, i));
    }
    shared_.ring.wait_all_released(next_stage_);
  }

 private:
  static constexpr unsigned kAll = ~0u;
  static constexpr int kGroups = Config::kTokens / 32;

  __device__ __forceinline__ int stage() const { return next_stage_ % Config::kStages; }
  __device__ __forceinline__ uint64_t* full() { return &shared_.ring.full[stage()]; }

  __device__ __forceinline__ void load_unit(const LinearLargeUnit& unit) {
    constexpr int kTokenBytes = Config::kTokens * 128, kHalfBytes = kTokenBytes / kPairCtas;
    constexpr uint16_t kBoth = (1 << kPairCtas) - 1;
    constexpr int kGroupBytes = Config::kScaleGroup * sizeof(float2);
    const uint8_t* weights = p_.weights + unit.row_tile(grid_, rank_) * row_tile_bytes(p_.shape);
    const uint8_t* const scales = weights + int64_t{grid_.depth} * kWeightTileBytes;
    // The second CTA's half has the scales behind it.
    const uint8_t* tokens =
        p_.workspace.x_image +
        int64_t{unit.token_tile} * grid_.depth * x_image_bytes(Config::kTokens) +
        rank_ * kHalfBytes;
    const uint32_t token_bytes =
        rank_ == 0 ? kHalfBytes : x_image_bytes(Config::kTokens) - kHalfBytes;
#pragma unroll 1
    for (int k = 0; k < grid_.depth; ++k) {
      shared_.ring.wait_empty(next_stage_);
      if (lane_ == 0) {
        uint8_t* const to = shared_.stages[stage()];
        const bool with_scales = k % Config::kScaleGroup == 0;
        const uint32_t scale_bytes =
            with_scales ? min(kGroupBytes, weight_scale_bytes(grid_.depth - k)) : 0;
        mbarrier_arrive_expect(full(), Config::kLoadedBytes + scale_bytes);
        bulk_copy(to, weights, kWeightTileBytes, full(), CachePolicy::kEvictLast);
        bulk_copy_to_ctas(shared_address(to + Config::kTokensAt + rank_ * kHalfBytes), tokens,
                          token_bytes, full(), kBoth, CachePolicy::kEvictLast);
        if (with_scales) {
          bulk_copy(shared_.weight_scales[next_scales_ % Config::kScaleGroups],
                    scales + k * sizeof(float2), scale_bytes, full(), CachePolicy::kEvictLast);
        }
      }
      __syncwarp();
      if (k % Config::kScaleGroup == 0) ++next_scales_;
      weights += kWeightTileBytes, tokens += x_image_bytes(Config::kTokens);
      ++next_stage_;
    }
  }

  // Of row 32 g + lane of unit i, which need not be there, the run; then the adapter. -1 for none.
  __device__ __forceinline__ void find_runs(int i, int (&runs)[kGroups]) const {
    const int first_row = LinearLargeUnit(grid_, i).first_row();
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int row = first_row + 32 * g + lane_;
      runs[g] = row < p_.num_tokens ? __ldg(p_.order.run_of_row + row) : -1;
    }
  }
  __device__ __forceinline__ void find_slots(const int (&runs)[kGroups],
                                             int (&slots)[kGroups]) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      slots[g] = runs[g] < 0 ? -1 : __ldg(&p_.order.runs[runs[g]].slot);
  }

  // Cells of the adapter's ranks on a row tile.
  __device__ __forceinline__ static int num_cells(const LinearAdapterSlot& slot,
                                                  const TileSlices& tile) {
    int n = 0;
#pragma unroll
    for (const SliceInTile& part : tile.of)
      n += part.begin < part.end ? (slot.rank[part.slice] + 15) / 16 : 0;
    return n;
  }

  // Lists the segments of the unit's tokens. Returns how many cells of factors a row tile of the
  // unit has, in this CTA and at most in both.
  struct CellCounts {
    int mine, most;
  };
  __device__ __forceinline__ CellCounts list_segments(const LinearLargeUnit& unit,
                                                      const int (&slots)[kGroups],
                                                      const TileSlices& mine) {
    const TileSlices other = tile_slices(p_.shape, unit.row_tile(grid_, rank_ ^ 1));
    __syncwarp();  // those of the unit before have been read
    int num_segments = 0, last_slot = -1;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int slot = slots[g], n = 32 * g + lane_;
      const int from_left = __shfl_up_sync(kAll, slot, 1),
                from_right = __shfl_down_sync(kAll, slot, 1),
                after = g + 1 < kGroups ? __shfl_sync(kAll, slots[(g + 1) % kGroups], 0) : -1;
      const bool begins = slot >= 0 && slot != (lane_ == 0 ? last_slot : from_left),
                 ends = slot >= 0 && slot != (lane_ == 31 ? after : from_right);
      const unsigned heads = __ballot_sync(kAll, begins);
      const int at = num_segments + __popc(heads & (kAll >> (31 - lane_))) - 1;
      if (begins) shared_.segments[at].begin = n, shared_.segments[at].slot = slot;
      if (ends) shared_.segments[at].end = n + 1;
      num_segments += __popc(heads);
      last_slot = __shfl_sync(kAll, slot, 31);
    }
    __syncwarp();
    int my_cells = 0, other_cells = 0;
#pragma unroll 1
    for (int i = lane_; i < num_segments; i += 32) {
      LinearLargeSegment& segment = shared_.segments[i];
      const LinearAdapterSlot& adapter = p_.adapters[segment.slot];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const SliceInTile& part = mine.of[j];
        const int s = part.begin < part.end ? part.slice : -1;
        const int rank = s < 0 ? 0 : adapter.rank[s];
        segment.rank[j] = rank;
        segment.octet[j] = ((s > 0 ? adapter.rank[0] : 0) + (s > 1 ? adapter.rank[1] : 0)) / 8;
        segment.factor[j] = s < 0 ? nullptr : adapter.expand[s] + int64_t{part.first} * 32 * rank;
      }
      my_cells += num_cells(adapter, mine);
      other_cells += num_cells(adapter, other);
    }
    __syncwarp();
    my_cells = __reduce_add_sync(kAll, my_cells);
    return {.mine = my_cells, .most = max(my_cells, __reduce_add_sync(kAll, other_cells))};
  }

  // The stages of a unit's factors: as many in both CTAs, whose rings go in step, and at least one.
  // Cells come in the order of an adapter's ranks.
  __device__ __forceinline__ void load_factors(const LinearLargeUnit& unit,
                                               const int (&slots)[kGroups]) {
    const TileSlices slices = tile_slices(p_.shape, unit.row_tile(grid_, rank_));
    const CellCounts cells = list_segments(unit, slots, slices);
    const int num_stages = max(1, (cells.most + Config::kCells - 1) / Config::kCells);
    int next = 0;  // of slices of segments
    int step = 0;  // of its ranks
#pragma unroll 1
    for (int i = 0; i < num_stages; ++i) {
      shared_.ring.wait_empty(next_stage_);
      LinearLargeFactors<Config>& factors = shared_.factors[stage()];
      const int num_cells = max(0, min(Config::kCells, cells.mine - i * Config::kCells));
#pragma unroll 1
      for (int c = 0; c < num_cells; ++c, ++step) {
        while (16 * step >= shared_.segments[next / 2].rank[next % 2]) ++next, step = 0;
        const SliceInTile slice = next % 2 == 0 ? SliceInTile(slices.of[0]) : slices.of[1];
        load_cell(unit, factors.cells[c], slice, shared_.segments[next / 2], next % 2, step,
                  shared_.stages[stage()] + c * Config::kCellBytes);
      }
      // The stage is full when all lanes' copies have landed and this arrival has come.
      async_copy_arrive_besides(full());
      if (lane_ == 0) factors.num_cells = num_cells, factors.is_last = i + 1 == num_stages;
      __syncwarp();
      if (lane_ == 0) mbarrier_arrive(full());
      ++next_stage_;
    }
  }

  // By all lanes, 16 bytes each: a warp starts bulk copies one after the other.
  __device__ __forceinline__ void load_cell(const LinearLargeUnit& unit, LinearLargeCell& cell,
                                            const SliceInTile& slice,
                                            const LinearLargeSegment& segment, int of, int step,
                                            uint8_t* to) {
    const int rank = segment.rank[of], width = min(16, rank - 16 * step);
    if (lane_ == 0) {
      cell = {.begin = segment.begin,
              .end = segment.end,
              .first_piece = slice.begin,
              .end_piece = slice.end,
              .is_half = width < 16};
    }
    const uint32_t to_u = shared_address(to), to_b = to_u + 2 * Config::kOctetBytes + 16 * lane_;
    const uint8_t* from = segment.factor[of] + step * Config::kPieceBytes + 16 * lane_;
    if (lane_ < 2 * width) {  // of 16 rows of B
#pragma unroll 1
      for (int piece = slice.begin; piece < slice.end; ++piece, from += 32 * rank)
        async_copy_16(to_b + piece * Config::kPieceBytes, from, true);
    }
#pragma unroll 1
    for (int octet = 0; octet < width / 8; ++octet) {
      const Bf16* const u =
          p_.workspace.u_octets + u_octet_at(segment.octet[of] + 2 * step + octet, unit.first_row(),
                                             p_.workspace.max_tokens);
#pragma unroll 1
      for (int n = segment.begin + lane_; n < segment.end; n += 32)
        async_copy_16(to_u + octet * Config::kOctetBytes + 16 * n, u + 8 * n, true);
    }
  }

  const LinearBf16Params& p_;
  const LinearLargeGrid& grid_;
  LinearLargeShared<Config>& shared_;
  int lane_, rank_;
  uint32_t next_stage_ = 0;   // of all that there have been
  uint32_t next_scales_ = 0;  // groups of them
};

}  // namespace braid::kernels

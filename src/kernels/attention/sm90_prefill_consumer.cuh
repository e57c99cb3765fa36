#pragma once

// The warpgroups of prefill attention that multiply.

#include <cstdint>

#include "kernels/attention/kv_elements.cuh"
#include "kernels/attention/sm90_prefill.cuh"
#include "kernels/common/cluster.cuh"
#include "kernels/common/cluster_mbarrier.cuh"
#include "kernels/common/mbarrier.cuh"
#include "kernels/common/named_barrier.cuh"
#include "kernels/common/wgmma.cuh"
#include "kernels/common/wgmma_registers.cuh"

namespace braid::kernels {

// Largest score and sum of weights of a thread's two rows, lane / 4 and 8 more of its warp's 16.
// Scores are as they come from the product, before the softmax scale.
struct PrefillRows {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};
};

template <class Config>
class PrefillConsumer {
 public:
  static constexpr int kDim = Config::kDim, kTileKeys = Config::kTileKeys;
  static constexpr int kBarrierTurn = 2;  // and 3: of each warpgroup
  static constexpr int kBarrierAll = 4;   // of both

  __device__ PrefillConsumer(const AttentionBf16Params& p, PrefillShared<Config>& shared,
                             int warpgroup, int part, int parts, int thread)
      : p_(p),
        shared_(shared),
        warpgroup_(warpgroup),
        part_(part),
        parts_(parts),
        thread_(thread),
        lane_(thread % 32),
        scale_(p.softmax_scale * 1.4426950408889634f),  // log2(e)
        q_(wgmma_descriptor(shared.q) + warpgroup * kWgmmaStep64Rows),
        k_(wgmma_descriptor(shared.k)),
        v_(wgmma_descriptor_by_rows(shared.v, kTileKeys * 128)) {}

  __device__ __forceinline__ void run() {
    // The first warpgroup begins.
    if (warpgroup_ == 1) barrier_arrive<Config::kConsumers>(kBarrierTurn);
    for (uint32_t parity = 0;; parity ^= 1) {
      mbarrier_wait(&shared_.q_full[warpgroup_], parity);
      PrefillItem item = shared_.item[warpgroup_];
      // What loops and branches follow: known to be the same in a warp, it needs no registers.
      item.sequence = __shfl_sync(~0u, item.sequence, 0);
      item.num_key_tiles = __shfl_sync(~0u, item.num_key_tiles, 0);
      if (item.sequence < 0) break;
      begin(item);
      if constexpr (Config::kSplit) {
        run_split(item);
        release_queries();
      } else {
        run_alone(item);
      }
    }
    // Every signal has been waited for.
    if (warpgroup_ == 0) barrier_wait<Config::kConsumers>(kBarrierTurn);
  }

 private:
  using Position = RingPosition<Config::kStages>;

  __device__ __forceinline__ void begin(const PrefillItem& item) {
    const int group = p_.num_heads / p_.kv.num_kv_heads;
    const auto position_of = [&](int row) {
      return item.position0 + (item.first_row + min(row, item.num_rows - 1)) / group;
    };
#pragma unroll
    for (int e = 0; e < 2; ++e) last_key_[e] = position_of(row(e));
    all_see_ = __shfl_sync(~0u, position_of(64 * warpgroup_), 0);
  }

  // Of this thread, in the CTA.
  __device__ __forceinline__ int row(int e) const {
    return 64 * warpgroup_ + thread_ / 32 * 16 + lane_ / 4 + 8 * e;
  }

  // --- one CTA over all units ---

  __device__ __forceinline__ void run_alone(const PrefillItem& item) {
    float out[kDim / 2];
    PrefillRows rows, earlier;
    int units = 0;  // that have been joined
    attend(0, item.num_key_tiles, out, rows, [&](const PrefillRows& unit) {
      if constexpr (Config::kUnits) join(units++, unit, out, earlier);
    });
    sum_over_lanes(rows);
    if constexpr (Config::kUnits) {
      if (units > 0) {
        auto& sums = shared_.sums[warpgroup_];
        const Weights weights = weigh(earlier, rows);
#pragma unroll
        for (int i = 0; i < kDim / 8; ++i) put(add(sums[i][thread_], get(out, i), weights), out, i);
        rows = earlier;
      }
    }
    const Outputs outputs = find_outputs(item, rows);
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) store(outputs, i, get(out, i));
  }

  // Adds a unit that has ended to those before.
  __device__ __forceinline__ void join(int units, PrefillRows unit, const float (&out)[kDim / 2],
                                       PrefillRows& earlier) {
    auto& sums = shared_.sums[warpgroup_];
    sum_over_lanes(unit);
    if (units == 0) {
      earlier = unit;
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) sums[i][thread_] = get(out, i);
      return;
    }
    const Weights weights = weigh(earlier, unit);
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
      sums[i][thread_] = add(sums[i][thread_], get(out, i), weights);
  }

  // --- a cluster over all units ---

  // Each CTA sends the sums of its unit to those that finish them, each a share of the columns:
  // 8 of them, a piece, go to CTA `piece % parts`. It joins what came in the order of the units.
  __device__ __forceinline__ void run_split(const PrefillItem& item) {
    const int units = num_units<Config>(item);
    const int share = kPieces / parts_;
    float4 joined[kMostPieces];
    PrefillRows earlier;
    for (int first = 0; first < units; first += parts_) {
      const int unit = first + part_, here = min(parts_, units - first);
      if (unit < units) {
        float out[kDim / 2];
        PrefillRows rows;
        attend(unit * Config::kUnitTiles, min(item.num_key_tiles, (unit + 1) * Config::kUnitTiles),
               out, rows, [](const PrefillRows&) {});
        sum_over_lanes(rows);
        if (first > 0) wait_for_readers();
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          store_to_cta(&shared_.sums[warpgroup_][part_ * share + i / parts_][thread_], get(out, i),
                       &shared_.sums_ready, static_cast<uint32_t>(i % parts_));
        }
        if (lane_ % 4 == 0) {
#pragma unroll
          for (int e = 0; e < 2; ++e)
            shared_.max_and_sum[row(e)] = make_float2(rows.max[e], rows.sum[e]);
        }
      } else if (first > 0) {
        wait_for_readers();
      }
      if (warpgroup_ == 0 && thread_ == 0)
        mbarrier_expect(&shared_.sums_ready, here * share * sizeof(shared_.sums[0][0]) * 2);
      tell_all(&shared_.sums_ready);
      mbarrier_wait_cluster(&shared_.sums_ready, ready_parity_);
      ready_parity_ ^= 1;
      for (int cta = 0; cta < here; cta += kBatch) join_batch(cta, here, first, joined, earlier);
      tell_all(&shared_.sums_read);
    }
    wait_for_readers();
    const Outputs outputs = find_outputs(item, earlier);
#pragma unroll
    for (int i = 0; i < kMostPieces; ++i) {
      if (i < share) store(outputs, part_ + i * parts_, joined[i]);
    }
  }

  static constexpr int kPieces = kDim / 8;                             // of 8 columns
  static constexpr int kMostPieces = kPieces / Config::kLeastCluster;  // of one CTA
  static constexpr int kBatch = 4;  // CTAs whose rows are read at once: that takes long

  // Adds what has come from CTAs `cta` on, up to CTA `end`.
  __device__ __forceinline__ void join_batch(int cta, int end, int first_unit,
                                             float4 (&joined)[kMostPieces],
                                             PrefillRows& earlier) const {
    float2 max_and_sum[kBatch][2];
#pragma unroll
    for (int c = 0; c < kBatch; ++c) {
      const PrefillShared<Config>& there = *in_cta(&shared_, min(cta + c, end - 1));
#pragma unroll
      for (int e = 0; e < 2; ++e) max_and_sum[c][e] = there.max_and_sum[row(e)];
    }
    const int share = kPieces / parts_;
#pragma unroll
    for (int c = 0; c < kBatch; ++c) {
      if (cta + c >= end) return;
      PrefillRows rows;
#pragma unroll
      for (int e = 0; e < 2; ++e)
        rows.max[e] = max_and_sum[c][e].x, rows.sum[e] = max_and_sum[c][e].y;
      const bool is_first = first_unit + cta + c == 0;
      Weights weights = {};
      if (is_first) {
        earlier = rows;
      } else {
        weights = weigh(earlier, rows);
      }
#pragma unroll
      for (int i = 0; i < kMostPieces; ++i) {
        if (i >= share) break;
        const float4 more = shared_.sums[warpgroup_][(cta + c) * share + i][thread_];
        joined[i] = is_first ? more : add(joined[i], more, weights);
      }
    }
  }

  // Nobody sends more, or leaves, before all have read what was sent.
  __device__ __forceinline__ void wait_for_readers() {
    mbarrier_wait_cluster(&shared_.sums_read, read_parity_);
    read_parity_ ^= 1;
  }

  // Arrives at this barrier of every CTA, for what both warpgroups have written and read.
  __device__ __forceinline__ void tell_all(uint64_t* barrier) const {
    barrier_wait<Config::kConsumers>(kBarrierAll);
    if (warpgroup_ == 0 && thread_ < parts_) mbarrier_arrive_cluster(barrier, thread_);
  }

  // --- tiles of keys ---

  // Sums over tiles [first, end) with what the rows' softmax is then: a unit, or the last of
  // several; at the end of each one before calls end_unit with its rows, when `out` has its sums.
  template <class EndUnit>
  __device__ __forceinline__ void attend(int first, int end, float (&out)[kDim / 2],
                                         PrefillRows& rows, EndUnit&& end_unit) {
    float score[kTileKeys / 2];
    uint32_t weight[kTileKeys / 4];
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out[i] = 0.0f;

    mbarrier_wait(&shared_.k_full[at_.place], at_.parity);
    multiply_keys(score);
    wgmma_wait<0>();
    wgmma_pin(score);
    release(&shared_.k_empty[at_.place]);
    mask(score, first);
    float rescale[2];
    soften(score, rows, rescale);
    round(score, weight);

    PrefillRows ended;
    // Makes `out` ready for the values of a tile.
    const auto settle = [&](int tile) {
      if (joins_before(tile)) {
        end_unit(ended);
      } else {
#pragma unroll
        for (int i = 0; i < kDim / 2; ++i) out[i] *= rescale[i / 2 % 2];
      }
    };

    // While a tile is multiplied with the queries, sums are made ready for the values of the tile
    // before; while those are multiplied, scores become weights.
#pragma unroll 1
    for (int tile = first + 1; tile < end; ++tile) {
      const Position previous = at_;
      at_.advance();
      mbarrier_wait(&shared_.k_full[at_.place], at_.parity);
      barrier_wait<Config::kConsumers>(kBarrierTurn + warpgroup_);
      multiply_keys(score);
      settle(tile - 1);
      mbarrier_wait(&shared_.v_full[previous.place], previous.parity);
      multiply_values(out, weight, previous.place, !begins_unit(tile - 1));
      barrier_arrive<Config::kConsumers>(kBarrierTurn + 1 - warpgroup_);
      wgmma_wait<1>();
      wgmma_pin(score);
      release(&shared_.k_empty[at_.place]);
      mask(score, tile);
      if (joins_before(tile)) {
        ended = rows;
        rows = {};
      }
      soften(score, rows, rescale);
      wait_for_sum(rows);
      wgmma_wait<0>();
      wgmma_pin(out);
      wgmma_pin(weight);
      release(&shared_.v_empty[previous.place]);
      round(score, weight);
    }
    if constexpr (!Config::kSplit) release_queries();

    settle(end - 1);
    mbarrier_wait(&shared_.v_full[at_.place], at_.parity);
    multiply_values(out, weight, at_.place, !begins_unit(end - 1));
    wgmma_wait<0>();
    wgmma_pin(out);
    wgmma_pin(weight);
    release(&shared_.v_empty[at_.place]);
    at_.advance();
  }

  __device__ __forceinline__ static bool begins_unit(int tile) {
    return tile % Config::kUnitTiles == 0;
  }
  // With the unit that this tile begins another has ended, whose sums are in this CTA.
  __device__ __forceinline__ static bool joins_before(int tile) {
    return Config::kUnits && !Config::kSplit && begins_unit(tile) && tile > 0;
  }

  // Scores of the tile at at_.
  __device__ __forceinline__ void multiply_keys(float (&score)[kTileKeys / 2]) {
    const uint64_t k = k_ + static_cast<uint64_t>(at_.place * (Config::kTileBytes >> 4));
    wgmma_pin(score);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      const int in_tile = d % 4 * kWgmmaStep32Bytes;
      wgmma_m64k16(score, q_ + (d / 4 * (Config::kRows * 128 >> 4) + in_tile),
                   k + (d / 4 * (kTileKeys * 128 >> 4) + in_tile), d > 0);
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void multiply_values(float (&out)[kDim / 2],
                                                  uint32_t (&weight)[kTileKeys / 4], int place,
                                                  bool accumulate) {
    const uint64_t v = v_ + static_cast<uint64_t>(place * (Config::kTileBytes >> 4));
    wgmma_pin(out);
    wgmma_pin(weight);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kTileKeys / 16; ++i) {
      wgmma_m64k16_registers(
          out, make_uint4(weight[4 * i], weight[4 * i + 1], weight[4 * i + 2], weight[4 * i + 3]),
          v + i * kWgmmaStep16Rows, i > 0 || accumulate);
    }
    wgmma_commit();
  }

  // --- softmax ---

  __device__ __forceinline__ void mask(float (&score)[kTileKeys / 2], int tile) const {
    if ((tile + 1) * kTileKeys - 1 <= all_see_) return;
    const int key = tile * kTileKeys + 2 * (lane_ % 4);
#pragma unroll
    for (int i = 0; i < kTileKeys / 2; ++i) {
      if (key + i / 4 * 8 + i % 2 > last_key_[i / 2 % 2]) score[i] = -INFINITY;
    }
  }

  // Scores to weights, against the largest so far; `rescale` is for sums of weights before. A row
  // that has seen no key yet keeps -inf for its largest, zero for its weights.
  __device__ __forceinline__ void soften(float (&score)[kTileKeys / 2], PrefillRows& rows,
                                         float (&rescale)[2]) const {
    // Several chains of maxima and sums, so that few instructions wait for the one before.
    float base[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float max[4] = {rows.max[e], -INFINITY, -INFINITY, -INFINITY};
#pragma unroll
      for (int i = 0; i < kTileKeys / 8; ++i)
        max[i % 4] = fmaxf(max[i % 4], fmaxf(score[4 * i + 2 * e], score[4 * i + 2 * e + 1]));
      float most = fmaxf(fmaxf(max[0], max[1]), fmaxf(max[2], max[3]));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
      base[e] = most == -INFINITY ? 0.0f : __fmul_rn(most, scale_);
      rescale[e] = exp2_approximate(__fsub_rn(__fmul_rn(rows.max[e], scale_), base[e]));
      rows.max[e] = most;
      rows.sum[e] = __fmul_rn(rows.sum[e], rescale[e]);
    }
    float sum[2][2] = {};
#pragma unroll
    for (int i = 0; i < kTileKeys / 2; ++i) {
      const int e = i / 2 % 2;
      score[i] = exp2_approximate(__fmaf_rn(score[i], scale_, -base[e]));
      sum[e][i % 2] = __fadd_rn(sum[e][i % 2], score[i]);
    }
#pragma unroll
    for (int e = 0; e < 2; ++e)
      rows.sum[e] = __fadd_rn(rows.sum[e], __fadd_rn(sum[e][0], sum[e][1]));
  }

  // ptxas 13.0 moves the wait for the other product before the softmax, which is to run beside it;
  // a branch that needs the sum of all weights keeps it where it is. It is never taken: weights are
  // not negative. All lanes go one way, or addresses after it are no longer known to be uniform.
  __device__ __forceinline__ static void wait_for_sum(const PrefillRows& rows) {
    if (__any_sync(~0u, rows.sum[0] + rows.sum[1] < 0.0f)) __trap();
  }

  __device__ __forceinline__ static void round(const float (&score)[kTileKeys / 2],
                                               uint32_t (&weight)[kTileKeys / 4]) {
#pragma unroll
    for (int i = 0; i < kTileKeys / 4; ++i) weight[i] = pack_bf16(score[2 * i], score[2 * i + 1]);
  }

  __device__ __forceinline__ static void sum_over_lanes(PrefillRows& rows) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      rows.sum[e] = __fadd_rn(rows.sum[e], __shfl_xor_sync(~0u, rows.sum[e], 1));
      rows.sum[e] = __fadd_rn(rows.sum[e], __shfl_xor_sync(~0u, rows.sum[e], 2));
    }
  }

  // --- units joined: the same operations wherever it is done ---

  struct Weights {
    float earlier[2], unit[2];
  };

  // `earlier` becomes what both are together. A unit without a key changes nothing.
  __device__ __forceinline__ Weights weigh(PrefillRows& earlier, const PrefillRows& unit) const {
    Weights w;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float max = fmaxf(earlier.max[e], unit.max[e]), base = __fmul_rn(max, scale_);
      w.earlier[e] = exp2_approximate(__fsub_rn(__fmul_rn(earlier.max[e], scale_), base));
      w.unit[e] = exp2_approximate(__fsub_rn(__fmul_rn(unit.max[e], scale_), base));
      earlier.sum[e] = __fmaf_rn(earlier.sum[e], w.earlier[e], __fmul_rn(unit.sum[e], w.unit[e]));
      earlier.max[e] = max;
    }
    return w;
  }
  __device__ __forceinline__ static float4 add(const float4& earlier, const float4& unit,
                                               const Weights& w) {
    return make_float4(__fmaf_rn(earlier.x, w.earlier[0], __fmul_rn(unit.x, w.unit[0])),
                       __fmaf_rn(earlier.y, w.earlier[0], __fmul_rn(unit.y, w.unit[0])),
                       __fmaf_rn(earlier.z, w.earlier[1], __fmul_rn(unit.z, w.unit[1])),
                       __fmaf_rn(earlier.w, w.earlier[1], __fmul_rn(unit.w, w.unit[1])));
  }
  __device__ __forceinline__ static float4 get(const float (&out)[kDim / 2], int i) {
    return make_float4(out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]);
  }
  __device__ __forceinline__ static void put(const float4& x, float (&out)[kDim / 2], int i) {
    out[4 * i] = x.x, out[4 * i + 1] = x.y, out[4 * i + 2] = x.z, out[4 * i + 3] = x.w;
  }

  // --- end ---

  // Where this thread's outputs begin in its rows; null past the last row.
  struct Outputs {
    Bf16* of_row[2];
    float inverse[2];  // of the rows' sums
  };
  __device__ __forceinline__ Outputs find_outputs(const PrefillItem& item,
                                                  const PrefillRows& rows) const {
    const int group = p_.num_heads / p_.kv.num_kv_heads;
    Outputs outputs;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int number = item.first_row + row(e), query = number / group;
      const int64_t head = int64_t{item.first_token + query} * p_.num_heads + item.kv_head * group +
                           number - query * group;
      outputs.of_row[e] = row(e) < item.num_rows ? p_.out + head * kDim + 2 * (lane_ % 4) : nullptr;
      outputs.inverse[e] = 1.0f / rows.sum[e];
    }
    return outputs;
  }

  // Columns 8 * piece to 8 * piece + 7 of the rows.
  __device__ __forceinline__ static void store(const Outputs& to, int piece, const float4& sums) {
    if (to.of_row[0] != nullptr) {
      *reinterpret_cast<uint32_t*>(to.of_row[0] + 8 * piece) =
          pack_bf16(__fmul_rn(sums.x, to.inverse[0]), __fmul_rn(sums.y, to.inverse[0]));
    }
    if (to.of_row[1] != nullptr) {
      *reinterpret_cast<uint32_t*>(to.of_row[1] + 8 * piece) =
          pack_bf16(__fmul_rn(sums.z, to.inverse[1]), __fmul_rn(sums.w, to.inverse[1]));
    }
  }

  // A warp is done with what the barrier is for.
  __device__ __forceinline__ void release(uint64_t* empty) const {
    if (lane_ == 0) mbarrier_arrive(empty);
  }
  __device__ __forceinline__ void release_queries() const { release(&shared_.q_empty[warpgroup_]); }

  const AttentionBf16Params& p_;
  PrefillShared<Config>& shared_;
  const int warpgroup_, part_, parts_;
  const int thread_, lane_;  // in the warpgroup, in the warp
  const float scale_;
  const uint64_t q_, k_, v_;
  Position at_;
  uint32_t ready_parity_ = 0, read_parity_ = 0;  // of what the CTAs of a cluster wait for
  int last_key_[2];                              // that the thread's rows see
  int all_see_;                                  // up to this key every row of the warpgroup does
};

}  // namespace braid::kernels

#pragma once

// Prefill attention: queries of chunked prompts over the paged cache in BF16.
//
// A CTA takes one item after the other (sm90_prefill_items.cuh): kRows rows of one sequence and KV
// head, so that all heads of the group use each key that was read. Four producer warps fill shared
// memory: two have the copy engine bring tiles of kTileKeys keys and of as many values into rings,
// two copy the queries of a warpgroup each. Two warpgroups of 64 rows multiply (wgmma), in turn:
// one's softmax runs while the other's products do.
//
// Keys are summed by units of kUnitTiles tiles, from position 0 on; a unit begins with empty sums,
// and the sums of units are joined in their order. So it makes no difference to a row's bits
// whether one CTA goes over all its units or (kSplit) the CTAs of a cluster take them in turn, nor
// how its prompt was cut: a tile or unit that is masked for a row leaves its bits as they are.

#include <cuda.h>

#include <cstdint>

#include "kernels/attention/attention_bf16.h"
#include "kernels/attention/sm90_prefill_items.cuh"

namespace braid::kernels {

template <int kHeadDim, bool kInClusters>
struct PrefillConfig {
  static constexpr int kDim = kHeadDim;
  static constexpr int kColumnTiles = (kDim + 63) / 64;  // of 128 bytes; past kDim nothing is used
  static constexpr int kRows = 128;
  static constexpr int kTileKeys = kDim > 128 ? 64 : 128;
  static constexpr int kStages = 2;
  // At head_dim 256 shared memory has no place for the sums of earlier units: all keys are one.
  static constexpr bool kUnits = kDim <= 128;
  static constexpr int kUnitTiles = kUnits ? 1024 / kTileKeys : 1 << 30;
  static constexpr bool kSplit = kInClusters;
  static_assert(kUnits || !kSplit);
  // CTAs of a cluster: of fewer each would have more columns to join than registers have room for.
  // Shares of the columns are equal.
  static constexpr int kLeastCluster = 4, kMostCluster = kDim / 8 % 8 == 0 ? 8 : 4;

  static constexpr int kConsumers = 256;
  static constexpr int kThreads = kConsumers + 128;
  static constexpr int kConsumerRegisters = 224, kProducerRegisters = 56;
  static constexpr int kTileBytes = kColumnTiles * kTileKeys * 128;
  static constexpr int kQBytes = kColumnTiles * kRows * 128;
};

// Full barriers complete when data has landed, empty ones when everyone is done with it.
template <class Config>
struct PrefillShared {
  // Tiles of 64 columns, one behind the other, as wgmma reads them.
  alignas(1024) uint8_t q[Config::kQBytes];
  alignas(1024) uint8_t k[Config::kStages][Config::kTileBytes];
  alignas(1024) uint8_t v[Config::kStages][Config::kTileBytes];
  // By thread, as in registers: sums of earlier units, or (kSplit) this CTA's share of the columns
  // from each CTA of the cluster.
  float4 sums[2][Config::kUnits ? Config::kDim / 8 : 1][128];
  float2 max_and_sum[Config::kRows];  // of this CTA's last unit; kSplit only
  uint64_t k_full[Config::kStages], k_empty[Config::kStages];
  uint64_t v_full[Config::kStages], v_empty[Config::kStages];
  uint64_t q_full[2], q_empty[2];  // of each warpgroup
  uint64_t sums_ready, sums_read;  // of all CTAs of the cluster
  PrefillItem item[2];             // whose queries are there
};

struct PrefillArguments {
  AttentionBf16Params params;
  CUtensorMap k_map, v_map;  // of the cache's rows
  int32_t box_rows;          // of a box: of one block and one tile
  int32_t block_shift;       // log2 of block_size
  int32_t cluster;           // CTAs that share an item
};

// Where a number of things done so far stands in a ring: a place, and the parity of its phase.
template <int kPlaces>
struct RingPosition {
  int place = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++place == kPlaces) place = 0, parity ^= 1;
  }
};

// Units of the item that CTA `part` of a cluster of `parts` takes: part, part + parts, ... In each
// round every CTA has one or, at the end, none.
template <class Config>
__device__ __forceinline__ int num_units(const PrefillItem& item) {
  return Config::kUnits ? (item.num_key_tiles + Config::kUnitTiles - 1) / Config::kUnitTiles : 1;
}

}  // namespace braid::kernels

#pragma once

// What decode attention's producer and consumers share: sizes, units, shared memory.

#include <algorithm>
#include <cstdint>

#include "kernels/attention/attention_bf16.h"
#include "kernels/common/mbarrier.cuh"

namespace braid::kernels {

template <int kHeadDim, KvFormat kKvFormat, int kHeadTileCount>
struct DecodeConfig {
  static constexpr int kDim = kHeadDim;
  static constexpr KvFormat kFormat = kKvFormat;
  static constexpr int kHeadTiles = kHeadTileCount;  // of 8 heads that share a KV head
  static constexpr int kHeads = 8 * kHeadTiles;
  // Many warps in one CTA end a unit sooner; of e4m3, where a unit is half the bytes, more units at
  // a time are faster (docs/kernels/attention.md).
  static constexpr bool kSmallSums = kHeadTiles == 1 && kDim <= 128;
  static constexpr int kConsumers = kSmallSums && kFormat == KvFormat::kBf16 ? 8 : 4;  // warps
  // One thread starts two copies in 0.3 us, which is too slow for an SM's share of memory.
  static constexpr int kProducers = kConsumers / 2;  // warps
  static constexpr int kThreads = 32 * (kConsumers + kProducers);
  static constexpr int kStageKeys = 16;
  static constexpr int kPieceBytes =
      kStageKeys * kDim * static_cast<int>(element_bytes(kFormat));  // of keys or of values
  // Floats of a head's row of warps' sums; the 4 spread rows over banks.
  static constexpr int kRow = kDim + 4;
  // Warps leave their sums for each other so many at a time. Eight do in two rounds, which makes
  // room for a ring of more than a unit: memory would idle while a unit's sums are joined.
  static constexpr int kJoinRounds = kConsumers == 8 ? 2 : 1;
  static constexpr int kJoinWarps = kConsumers / kJoinRounds;
  static constexpr int kJoinBytes = kJoinWarps * kHeads * kRow * 4;
  static constexpr int kCtasPerSm =
      kSmallSums ? (kFormat == KvFormat::kBf16 ? 1 : 2) : (kJoinBytes > 30 * 1024 ? 1 : 2);
  static constexpr bool kQInShared = kDim * kHeadTiles > 256;  // not in registers
  static constexpr int kQBytes = kQInShared ? kHeads * kDim * 2 : 16;
  static constexpr int kSharedBytes = 227 * 1024 / kCtasPerSm - 1024;
  static constexpr int kRingBytes =
      kSharedBytes - kJoinBytes - kQBytes - 4 * (kMaxAttentionSequences + 1) - 1024;
  // A slot of the ring belongs to one warp: a wait names the parity of a fill, and only who has
  // consumed the fill before can tell it from the one before that.
  static constexpr int kStages =
      std::min(kRingBytes / (2 * kPieceBytes), 32) / kConsumers * kConsumers;
  static_assert(kStages >= 2 * kConsumers);
};

// What the first producer tells the others about a unit.
struct DecodeUnit {
  int32_t sequence;  // -1: there are no more
  int32_t token;
  int32_t kv_head;
  int32_t split;
  int32_t num_splits;  // of the sequence
  int32_t first_key;
  int32_t num_keys;

  // As many for each of `num_warps` warps: the last ones may have no keys.
  __device__ int num_stages(int keys_per_stage, int num_warps) const {
    const int stages = (num_keys + keys_per_stage - 1) / keys_per_stage;
    return (stages + num_warps - 1) / num_warps * num_warps;
  }
};

// Units between the first producer and those who are slowest.
inline constexpr int kUnitSlots = 4;

template <class Config>
struct DecodeShared {
  alignas(128) uint8_t ring[Config::kStages][2][Config::kPieceBytes];  // keys, values
  alignas(16) float out[Config::kJoinWarps][Config::kHeads][Config::kRow];
  alignas(16) uint4 q[Config::kQBytes / 16];  // as the lanes read it
  float2 max_and_sum[Config::kConsumers][Config::kHeads];
  uint64_t full[Config::kStages], empty[Config::kStages];
  uint64_t unit_full[kUnitSlots], unit_empty[kUnitSlots];
  DecodeUnit units[kUnitSlots];
  int32_t first_unit[kMaxAttentionSequences + 1];  // split 0 of a sequence, for one KV head
  int32_t is_last;
};

// Unit `index` of the CTA, by one warp.
template <class Config>
__device__ __forceinline__ DecodeUnit take_unit(DecodeShared<Config>& shared, int index, int lane) {
  const int slot = index % kUnitSlots;
  mbarrier_wait(&shared.unit_full[slot], index / kUnitSlots % 2);
  const DecodeUnit u = shared.units[slot];
  __syncwarp();
  if (lane == 0) mbarrier_arrive(&shared.unit_empty[slot]);
  return u;
}

}  // namespace braid::kernels

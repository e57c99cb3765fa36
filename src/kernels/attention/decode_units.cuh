#pragma once

// What decode attention's producer and consumers share: sizes, units, shared memory.

#include <algorithm>
#include <cstdint>

#include "kernels/attention/attention_bf16.h"

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
  static constexpr int kThreads = 32 * (kConsumers + 1);
  static constexpr int kStageKeys = 16;
  static constexpr int kPieceBytes =
      kStageKeys * kDim * static_cast<int>(element_bytes(kFormat));  // of keys or of values
  // Floats of a head's row of warps' sums; the 4 spread rows over banks.
  static constexpr int kRow = kDim + 4;
  static constexpr int kJoinBytes = kConsumers * kHeads * kRow * 4;
  static constexpr int kCtasPerSm =
      kSmallSums ? (kFormat == KvFormat::kBf16 ? 1 : 3) : (kJoinBytes > 30 * 1024 ? 1 : 2);
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

// What the producer tells the others about a unit.
struct DecodeUnit {
  int32_t sequence;  // -1: there are no more
  int32_t token;
  int32_t kv_head;
  int32_t split;
  int32_t num_splits;  // of the sequence
  int32_t num_keys;

  // As many for each of `num_warps` warps: the last ones may have no keys.
  __device__ int num_stages(int keys_per_stage, int num_warps) const {
    const int stages = (num_keys + keys_per_stage - 1) / keys_per_stage;
    return (stages + num_warps - 1) / num_warps * num_warps;
  }
};

template <class Config>
struct DecodeShared {
  alignas(128) uint8_t ring[Config::kStages][2][Config::kPieceBytes];  // keys, values
  alignas(16) float out[Config::kConsumers][Config::kHeads][Config::kRow];
  alignas(16) uint4 q[Config::kQBytes / 16];  // as the lanes read it
  float2 max_and_sum[Config::kConsumers][Config::kHeads];
  uint64_t full[Config::kStages], empty[Config::kStages];
  uint64_t unit_full[2], unit_empty[2];
  DecodeUnit units[2];
  int32_t first_unit[kMaxAttentionSequences + 1];  // split 0 of a sequence, for one KV head
  int32_t is_last;
};

}  // namespace braid::kernels

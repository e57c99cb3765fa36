#pragma once

// Decode attention: sizes, shared memory, and which units a CTA has.

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
  static constexpr int kWarps = 8, kThreads = 32 * kWarps;
  // Two where registers have room for their sums: one multiplies while the other joins, and the
  // first finds a place beside a CTA of the kernel before.
  static constexpr int kCtasPerSm = kHeadTiles * kDim <= 128 ? 2 : 1;
  static constexpr int kStageKeys = 16;
  // A piece is the keys or the values of a stage, which one warp asks for and uses.
  static constexpr int kPieceBytes = kStageKeys * kDim * static_cast<int>(element_bytes(kFormat));
  // A warp leaves its sums for the others where its last pieces of a unit were, in rounds if need
  // be.
  static constexpr int kSumBytes = kHeads * kDim * 4;
  static constexpr int kHeldPieces = std::min(2, kSumBytes / kPieceBytes);
  static constexpr int kJoinRounds = kSumBytes / (kHeldPieces * kPieceBytes);
  static constexpr int kHeadsPerPiece = kPieceBytes / (kDim * 4);
  // 16-byte chunks of a row change places so that no read meets a bank twice.
  static constexpr int kRowBytes = kPieceBytes / kStageKeys;
  static constexpr bool kSwizzles = kRowBytes % 128 == 0;
  static constexpr int kSharedBytes = (228 / kCtasPerSm - 1) * 1024;
  static constexpr int kRingBytes = kSharedBytes - kHeads * kDim * 2 - kDim * 12 -
                                    kMaxSplits * kHeads * 8 - 4 * (kMaxAttentionSequences + 1) -
                                    3072;
  static constexpr int kPieces = std::min(kRingBytes / (kWarps * kPieceBytes), 8);  // a warp
  static_assert(kPieces > kHeldPieces);
};

// Where byte `byte` of a row of a piece lies.
template <class Config>
__device__ __forceinline__ int place_in_piece(int row, int byte) {
  const int swizzle = Config::kSwizzles ? (row & 6) << 4 ^ (row & 1) << 6 : 0;
  return row * Config::kRowBytes + (byte ^ swizzle);
}

template <class Config>
struct DecodeShared {
  alignas(128) uint8_t ring[Config::kWarps][Config::kPieces][Config::kPieceBytes];
  alignas(16) uint4 q[Config::kHeads * Config::kDim / 8];  // as the lanes read it
  alignas(16) uint8_t newest[2][Config::kDim * element_bytes(Config::kFormat)];  // key and value
  alignas(16) float2 turn[Config::kDim / 2];  // cosines and sines
  uint4 norms[2][Config::kDim / 8];           // of q and k
  float2 max_and_sum[Config::kWarps][Config::kHeads];
  float2 unit_max_and_sum[kMaxSplits * Config::kHeads];  // [num_splits, group]
  int32_t first_split[kMaxAttentionSequences + 1];       // of a sequence, for one KV head
};

struct DecodeUnit {
  int32_t sequence;
  int32_t kv_head;
  int32_t split;
  int32_t num_splits;  // of the sequence
  int32_t context_len;

  __device__ int first_key() const { return split * keys_per_split(context_len); }
  __device__ int num_keys() const {
    return min(keys_per_split(context_len), context_len - first_key());
  }
  __device__ bool has_newest_key() const { return split + 1 == num_splits; }
  // As many for each warp: the last ones may have no keys.
  template <class Config>
  __device__ int stages_per_warp() const {
    constexpr int kKeys = Config::kStageKeys * Config::kWarps;
    return (num_keys() + kKeys - 1) / kKeys;
  }
};

// Numbers the splits of all sequences, by one warp.
__device__ __forceinline__ void number_splits(const AttentionBf16Params& p, int32_t* first_split,
                                              int lane) {
  int before = 0;
  for (int first = 0; first < p.num_sequences; first += 32) {
    const int s = first + lane;
    int splits = 0;
    if (s < p.num_sequences && p.query_indptr[s + 1] > p.query_indptr[s])
      splits = num_splits(p.context_len[s]);
    int up_to = splits;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, up_to, step);
      if (lane >= step) up_to += other;
    }
    if (s < p.num_sequences) first_split[s] = before + up_to - splits;
    before += __shfl_sync(~0u, up_to, 31);
  }
  if (lane == 0) first_split[p.num_sequences] = before;
}

// Units are numbered by sequence, of each by KV head, of each by split. A CTA has neighbouring ones
// and takes the last first: so what it has of a sequence that it shares with the CTA behind it,
// which joins the sums, is done early.
//
// Unit `index`, of sequence `at_most` or one before it.
__device__ __forceinline__ DecodeUnit unit_at(const AttentionBf16Params& p,
                                              const int32_t* first_split, int index, int at_most) {
  const int kv_heads = p.kv.num_kv_heads;
  DecodeUnit u;
  u.sequence = at_most;
  while (first_split[u.sequence] * kv_heads > index) --u.sequence;
  const int first = first_split[u.sequence];
  u.num_splits = first_split[u.sequence + 1] - first;
  u.kv_head = (index - first * kv_heads) / u.num_splits;
  u.split = index - first * kv_heads - u.kv_head * u.num_splits;
  u.context_len = p.context_len[u.sequence];
  return u;
}

// The sequence of unit `index`.
__device__ __forceinline__ int sequence_of_unit(const AttentionBf16Params& p,
                                                const int32_t* first_split, int index) {
  int low = 0, high = p.num_sequences;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (first_split[middle] * p.kv.num_kv_heads <= index ? low : high) = middle;
  }
  return low;
}

}  // namespace braid::kernels

#pragma once

// The warps of prefill attention that fill shared memory.

#include <cstdint>

#include "kernels/attention/sm90_prefill.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/mbarrier.cuh"
#include "kernels/common/tensor_copy.cuh"
#include "kernels/common/tiles.h"

namespace braid::kernels {

template <class Config>
class PrefillProducer {
 public:
  static constexpr int kTileKeys = Config::kTileKeys, kColumnTiles = Config::kColumnTiles;
  using Items = PrefillItems<Config::kRows, kTileKeys>;

  __device__ PrefillProducer(const PrefillArguments& a, PrefillShared<Config>& shared, int part,
                             int parts, int lane)
      : a_(a),
        p_(a.params),
        shared_(shared),
        part_(part),
        parts_(parts),
        lane_(lane),
        block_shift_(a.block_shift),
        box_rows_(a.box_rows) {}

  // Keys of all items, one tile after the other. What lies past the last is masked, whatever it is.
  __device__ __forceinline__ void copy_keys(Items items) {
    copy_tiles(items, [&](const PrefillItem& item, int first_key, const Position& at) {
      const Box box = find_box(item, first_key);
      mbarrier_wait(&shared_.k_empty[at.place], at.parity ^ 1);
      copy_boxes(box, box.row < kTileKeys && first_key + box.row < item.context_len,
                 shared_.k[at.place], a_.k_map, &shared_.k_full[at.place]);
    });
  }

  // Values. What lies past the last is multiplied with zero, so it must be a number.
  __device__ __forceinline__ void copy_values(Items items) {
    copy_tiles(items, [&](const PrefillItem& item, int first_key, const Position& at) {
      const Box box = find_box(item, first_key);
      const int num_keys = item.context_len - first_key;
      mbarrier_wait(&shared_.v_empty[at.place], at.parity ^ 1);
      if (num_keys < kTileKeys) copy_last_values(item, first_key, num_keys, shared_.v[at.place]);
      copy_boxes(box, box.row + box_rows_ <= min(num_keys, kTileKeys), shared_.v[at.place],
                 a_.v_map, &shared_.v_full[at.place]);
    });
  }

  // Queries of warpgroup `of`, and what its rows are.
  __device__ __forceinline__ void copy_queries(Items items, int of) {
    const int group = p_.num_heads / p_.kv.num_kv_heads;
    uint32_t parity = 0;
    for (;;) {
      const PrefillItem item = items.next();
      mbarrier_wait(&shared_.q_empty[of], parity ^ 1);
      parity ^= 1;
      if (item.sequence >= 0) {
        constexpr int kChunks = Config::kDim / 8;
#pragma unroll 4
        for (int i = lane_; i < 64 * kChunks; i += 32) {
          const int row = 64 * of + i / kChunks, chunk = i % kChunks;
          const bool there = row < item.num_rows;
          const int number = item.first_row + (there ? row : 0), query = number / group;
          const int head = item.kv_head * group + number - query * group;
          async_copy_16(
              shared_address(
                  &shared_.q[chunk / 8 * (Config::kRows * 128) + swizzled(row, chunk % 8 * 16)]),
              p_.q + (item.first_token + query) * p_.q_stride + head * Config::kDim + 8 * chunk,
              there);
        }
        async_copy_commit();
        async_copy_wait<0>();
        fence_proxy_async_shared();  // wgmma reads it
      }
      if (lane_ == 0) shared_.item[of] = item;
      __syncwarp();
      if (lane_ == 0) mbarrier_arrive(&shared_.q_full[of]);
      if (item.sequence < 0) return;
    }
  }

 private:
  using Position = RingPosition<Config::kStages>;

  template <class CopyTile>
  __device__ __forceinline__ void copy_tiles(Items items, CopyTile&& copy_tile) {
    fence_proxy_async_global();  // keys and values of the kernel before
    Position at;
    for (PrefillItem item = items.next(); item.sequence >= 0; item = items.next()) {
      for (int unit = part_; unit < num_units<Config>(item); unit += parts_) {
        const int first = unit * Config::kUnitTiles,
                  end = Config::kUnits ? min(item.num_key_tiles, first + Config::kUnitTiles)
                                       : item.num_key_tiles;
        for (int tile = first; tile < end; ++tile) {
          copy_tile(item, tile * kTileKeys, at);
          at.advance();
        }
      }
    }
  }

  // A lane has one box of a tile: 64 columns of some keys.
  struct Box {
    int column, row;  // in the tile
    int cache_row;    // of its first key; 0 where there is none
  };
  __device__ __forceinline__ Box find_box(const PrefillItem& item, int first_key) const {
    Box box = {.column = lane_ % kColumnTiles * 64, .row = lane_ / kColumnTiles * box_rows_};
    if (box.row < kTileKeys && first_key + box.row < item.context_len)
      box.cache_row = find_row(item, first_key + box.row);
    return box;
  }

  // Those that are there, and the phase's arrival.
  __device__ __forceinline__ void copy_boxes(const Box& box, bool there, uint8_t* to,
                                             const CUtensorMap& map, uint64_t* full) const {
    const int num_boxes = __popc(__ballot_sync(~0u, there));
    if (lane_ == 0) mbarrier_arrive_expect(full, num_boxes * box_rows_ * 128);
    __syncwarp();
    if (there) {
      tensor_copy(to + box.column * (kTileKeys * 2) + box.row * 128, map, box.column, box.cache_row,
                  full);
    }
  }

  // Values of a box that is not whole, and zeros from there on.
  __device__ __forceinline__ void copy_last_values(const PrefillItem& item, int first_key,
                                                   int num_keys, uint8_t* to) {
    constexpr int kChunks = Config::kDim / 8;
    const int first_row = num_keys / box_rows_ * box_rows_;
    for (int i = lane_; i < (kTileKeys - first_row) * kChunks; i += 32) {
      const int row = first_row + i / kChunks, chunk = i % kChunks;
      const bool there = row < num_keys;
      const int64_t cache_row = there ? find_row(item, first_key + row) : 0;
      async_copy_16(
          shared_address(&to[chunk / 8 * (kTileKeys * 128) + swizzled(row, chunk % 8 * 16)]),
          static_cast<const uint8_t*>(p_.kv.v_cache) + cache_row * (2 * Config::kDim) + 16 * chunk,
          there);
    }
    async_copy_commit();
    async_copy_wait<0>();
    fence_proxy_async_shared();  // wgmma reads it
    __syncwarp();
  }

  // The row of a key in the cache.
  __device__ __forceinline__ int find_row(const PrefillItem& item, int key) const {
    const int block =
        __ldg(p_.block_table + int64_t{item.sequence} * p_.max_kv_blocks + (key >> block_shift_));
    return (block * p_.kv.num_kv_heads + item.kv_head) << block_shift_ |
           (key & (p_.kv.block_size - 1));
  }

  const PrefillArguments& a_;
  const AttentionBf16Params& p_;
  PrefillShared<Config>& shared_;
  const int part_, parts_, lane_, block_shift_, box_rows_;
};

}  // namespace braid::kernels

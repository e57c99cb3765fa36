#pragma once

// What a warp asks memory for.

#include "kernels/attention/decode_units.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/grid_dependency.cuh"

namespace braid::kernels {

// The pieces of a warp's stages in all units of the CTA, in the order in which it uses them: the
// keys of a stage, its values, the keys of the next. Each goes to the warp's ring.
template <class Config>
class DecodeRequests {
 public:
  // Units from `begin` to `end`, the last one of `sequence`. Where the previous kernel writes the
  // newest keys and values, they are asked for behind it.
  __device__ DecodeRequests(const AttentionBf16Params& p, DecodeShared<Config>& shared, int begin,
                            int end, int sequence, bool newest_from_previous, int warp, int lane)
      : p_(p),
        shared_(shared),
        begin_(begin),
        newest_from_previous_(newest_from_previous),
        warp_(warp),
        lane_(lane),
        unit_(end - 1),
        sequence_(sequence) {}

  // Asks for the next piece, if there is one, as a group of copies. Its place in the ring must be
  // free. Rows past the sequence's end, which may hold anything, become zero.
  __device__ __forceinline__ void next() {
    if (unit_ >= begin_) {
      if (piece_ % 64 == 0) find_rows();
      const uint32_t row = __shfl_sync(~0u, row_of_lane_, piece_ / 2 % 32);
      const int num_keys = num_keys_ - key_of_stage(piece_ / 2);
      if (num_keys > 0) {
        const uint8_t* const from = piece_address(piece_, row) + 16 * lane_;
        const uint32_t to = shared_address(shared_.ring[warp_][slot_]);
#pragma unroll 4
        for (int i = 0; i < Config::kPieceBytes / 512; ++i) {
          const int byte = 16 * (32 * i + lane_), key = byte / Config::kRowBytes;
          async_copy_16(to + place_in_piece<Config>(key, byte % Config::kRowBytes), from + 512 * i,
                        key < num_keys, CachePolicy::kEvictFirst);
        }
      }
      if (++slot_ == Config::kPieces) slot_ = 0;
      if (++piece_ == num_pieces_) piece_ = 0, --unit_;
    }
    async_copy_commit();
  }

  // Brings what the ring has no room for yet of the unit at hand, up to as much again, into L2.
  __device__ __forceinline__ void bring_closer() const {
    if (unit_ < begin_ || piece_ == 0) return;
#pragma unroll 1
    for (int piece = piece_; piece < min(num_pieces_, 2 * Config::kPieces); ++piece) {
      const uint32_t row = __shfl_sync(~0u, row_of_lane_, piece / 2 % 32);
      if (key_of_stage(piece / 2) >= num_keys_) continue;
      for (int byte = 128 * lane_; byte < Config::kPieceBytes; byte += 32 * 128)
        prefetch_l2(piece_address(piece, row) + byte);
    }
  }

 private:
  __device__ __forceinline__ const uint8_t* piece_address(int piece, uint32_t row) const {
    return static_cast<const uint8_t*>(piece % 2 == 0 ? p_.kv.k_cache : p_.kv.v_cache) +
           int64_t{row} * Config::kRowBytes;
  }

  __device__ __forceinline__ int key_of_stage(int stage) const {
    return (stage * Config::kWarps + warp_) * Config::kStageKeys;
  }

  // Where 32 of the warp's stages lie in the cache, one a lane. 32 bits number more rows than a
  // GPU's memory has.
  __device__ __forceinline__ void find_rows() {
    const DecodeUnit u = unit_at(p_, shared_.first_split, unit_, sequence_);
    sequence_ = u.sequence;
    num_pieces_ = 2 * u.stages_per_warp<Config>();
    num_keys_ = u.num_keys();
    const int key_in_unit = key_of_stage(piece_ / 2 + lane_), key = u.first_key() + key_in_unit,
              block_shift = 31 - __clz(p_.kv.block_size);
    const bool has_keys = key_in_unit < num_keys_;
    if (has_keys) {
      const int block =
          p_.block_table[int64_t{u.sequence} * p_.max_kv_blocks + (key >> block_shift)];
      row_of_lane_ = static_cast<uint32_t>(block * p_.kv.num_kv_heads + u.kv_head) << block_shift |
                     (key & (p_.kv.block_size - 1));
    }
    if (newest_from_previous_ &&
        __any_sync(
            ~0u, has_keys && u.has_newest_key() && key_in_unit + Config::kStageKeys >= num_keys_)) {
      wait_for_previous_kernel();
    }
  }

  const AttentionBf16Params& p_;
  DecodeShared<Config>& shared_;
  const int begin_;
  const bool newest_from_previous_;
  const int warp_, lane_;
  int unit_, sequence_;
  int piece_ = 0, num_pieces_ = 0, num_keys_ = 0;  // of the unit; pieces are this warp's
  uint32_t row_of_lane_ = 0;
  int slot_ = 0;  // of the ring
};

}  // namespace braid::kernels

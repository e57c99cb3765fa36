#pragma once

// The ring of stages in shared memory through which a producer warp feeds a consumer warpgroup.
// Everything that is read from memory in bulk goes through it, in the order in which the consumers
// use it: A factors and x (shrink), weights and activations (main loop), parts of u or v and B
// factors (expand), A factors of down (down shrink).

#include <algorithm>
#include <cstdint>

#include "kernels/common/mbarrier.cuh"
#include "kernels/moe_gemm/format_gemm.h"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/sm90_small_batch.cuh"

namespace braid::kernels {

// kSmallBatch: gate_up of up to kSmallBatchTokens tokens, where every CTA chooses the experts
// itself. kRaw: gate_up stores its sums instead of h.
template <MoeGemm kGemm, WeightFormat kFormat_, int kTokens_, bool kLora_,
          bool kSmallBatch_ = false, bool kRaw_ = false>
struct GemmConfig {
  static constexpr bool kGateUp = kGemm == MoeGemm::kGateUp;
  static constexpr WeightFormat kFormat = kFormat_;
  static constexpr bool kFp8 = kFormat == WeightFormat::kFp8Block128;
  static constexpr bool kNvfp4 = kFormat == WeightFormat::kNvfp4;
  static constexpr bool kLora = kLora_;
  static constexpr bool kSmallBatch = kSmallBatch_;
  static constexpr bool kRaw = kRaw_;
  static constexpr int kTokens = kTokens_;
  static_assert(!kRaw || (kGateUp && !kLora && !kSmallBatch));
  static_assert(!kSmallBatch || (kGateUp && kTokens == kSmallBatchTokens));
  static_assert(kFp8 || !(kSmallBatch || kRaw));
  static constexpr int kColumnTiles = kTokens / 8;
  // gate_up tells down of each tile, so that its last tiles and down's first ones are under way at
  // once. In a small batch all tiles end together.
  static constexpr bool kTellsTiles = kGateUp && !kSmallBatch && !kRaw;
  // Shrink items may come in the middle of a guessed tile. NVFP4 does not guess with adapters
  // (most_guessed_experts), and four of its CTAs have no registers for both.
  static constexpr bool kShrinksInTile = kLora && kGateUp && !kSmallBatch && !kNvfp4;
  static constexpr int kConsumers = 128;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kCtasPerSm = gemm_ctas_per_sm(kFormat, kTokens, kLora);
  static constexpr int kScaleGroups = kGateUp ? 1 : 2;  // of activations, in 128 of depth

  // A stage of the main loop: weights, then activations, an image of 128-byte rows for each
  // kImageColumns columns. Of FP8, between them, in the first stage the scales of all weights, and
  // right before the rows their scales; NVFP4's global scales go into the header.
  static constexpr int kStageColumns = kFormat == WeightFormat::kBf16 ? 64 : 128;
  static constexpr int kStageWeightBytes = weight_columns_bytes(kFormat, kStageColumns);
  static constexpr int kImageColumns = image_columns(kFormat);
  static constexpr int kStageImages = kStageColumns / kImageColumns;
  static constexpr int kScaleOffset = kStageWeightBytes;
  static constexpr int kRowsOffset = kScaleOffset + (kFp8 ? 1024 : 0);
  static constexpr int stage_bytes(int num_tokens) {
    return kSmallBatch ? kRowsOffset
                       : kRowsOffset + kStageImages * ((num_tokens + 7) / 8 * 8 * 128);
  }
  // A stage of factors: cells, each one rank step of one run. A stage of a shrink item.
  static constexpr int kExpandCells = 4;
  static constexpr int kDownCells = 8;
  static constexpr int kShrinkBytes = kCtasPerSm > 2 ? 12 * 1024 : 48 * 1024;

  static constexpr int kHStride = 64 * 2 + 16;  // h in shared memory, bytes a token
  static constexpr int kOutStride = 64 + 16;    // output of a warp, bytes a token
  // Lies behind the ring: wgmma reads rows of all kTokens tokens, also where the last stage of the
  // ring has only 8.
  static constexpr int kBehindRing = (kTokens - 8) * 128;
  static constexpr int kScratchBytes =
      kGateUp ? kTokens * kHStride : std::max(4 * 8 * kOutStride, kBehindRing);
  static_assert(kScratchBytes >= kBehindRing);
  static constexpr int kXScales = kSmallBatch ? kSmallBatchHidden / 128 * kTokens : 4;
  static constexpr int kListBytes = kSmallBatch ? static_cast<int>(sizeof(SmallBatch)) : 16;
  // 228 kB an SM, of which the system takes 1 kB a CTA.
  static constexpr int kSharedBytes = (228 / kCtasPerSm - 1) * 1024;
  static constexpr int kStages = 16;  // at most; fewer where they fill the ring
  static constexpr int kRingBytes =
      (kSharedBytes - kScratchBytes - 4 * kXScales - kListBytes - 4096) / 1024 * 1024;
};

// A rank step of one run's factor.
struct FactorCell {
  int16_t begin;  // the run's tokens
  int16_t end;
  int16_t step;
  int16_t is_half;  // 8 ranks instead of 16
};

enum class StageKind : int32_t {
  kWeights,  // a tile's first stage, and the one that follows shrink items within it
  kShrink,   // a shrink item's first stage
  kSkip,     // a wrong guess: num_stages of no use
  kEnd,      // there is no more
};

// What the producer tells the consumers with a stage.
struct StageHeader {
  alignas(16) float global_scales[4];  // of NVFP4 in a weight tile's first stage: gate, up
  int32_t offset;                      // of its data in the ring
  StageKind kind;
  // First stage of a weight tile or shrink item.
  int32_t first_row;
  int32_t num_tokens;
  int32_t index;       // of the weight tile within the expert; of the slab
  int32_t num_stages;  // of a wrong guess
  int32_t shrink_at;   // the stage of the tile before which shrink items may come
  // Last stage of a weight tile.
  int32_t num_expand_cells;
  int32_t num_down_cells;
  // Shrink items.
  int32_t depth;  // columns of a stage
  int32_t num_slab_rows;
  int32_t rank;
  int32_t one_a;
  int32_t ready_index;
  int32_t first_part;
  int32_t num_parts;
  float scaling_gate;
  float scaling_up;
  // Stages of factors; no cells: parts of u or v.
  int32_t num_cells;
  FactorCell cells[8];
  float scaling[8];
};

template <class Config>
struct alignas(1024) GemmShared {
  uint8_t ring[Config::kRingBytes];
  alignas(16) uint8_t scratch[Config::kScratchBytes];
  float x_scale[Config::kXScales];  // of a small batch, [H / 128, tokens]
  alignas(16) uint8_t small_batch[Config::kListBytes];
  StageHeader headers[Config::kStages];
  uint64_t full[Config::kStages];
  uint64_t empty[Config::kStages];

  // Quantised x of a small batch, [H / 128, tokens, 128], lies behind a shorter ring instead of
  // coming with each stage.
  __device__ static int ring_bytes(int hidden_size) {
    return Config::kSmallBatch ? Config::kRingBytes - Config::kTokens * hidden_size
                               : Config::kRingBytes;
  }
  __device__ uint8_t* x_image(int hidden_size) { return ring + ring_bytes(hidden_size); }
  __device__ SmallBatch& batch() { return *reinterpret_cast<SmallBatch*>(small_batch); }
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
  __device__ RingWriter(GemmShared<Config>& shared, int ring_bytes, int lane)
      : shared_(shared), ring_bytes_(ring_bytes), lane_(lane) {}

  // Whether open() would not wait.
  __device__ __forceinline__ bool has_room(int bytes) const {
    const int size = (bytes + 1023) / 1024 * 1024;
    const int unused = offset_ + size > ring_bytes_ ? ring_bytes_ - offset_ : 0;
    return num_open_ < Config::kStages &&
           static_cast<int>(head_ + unused + size - tail_) <= ring_bytes_;
  }

  // Waits until `bytes` are free behind the last stage, and opens a stage there.
  __device__ __forceinline__ void open(int bytes) {
    const int size = (bytes + 1023) / 1024 * 1024;
    if (offset_ + size > ring_bytes_) head_ += ring_bytes_ - offset_, offset_ = 0;
    while (num_open_ == Config::kStages ||
           (num_open_ > 0 && static_cast<int>(head_ + size - tail_) > ring_bytes_)) {
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
  int ring_bytes_;
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

}  // namespace braid::kernels

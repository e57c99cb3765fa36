#pragma once

// What a warp does: its part of q and of the newest key, scores, weights, sums, and the joining of
// sums. All warps of a CTA go through its units together; they meet where a query begins and where
// a unit ends.

#include <cstdint>

#include "kernels/attention/decode_units.cuh"
#include "kernels/attention/kv_elements.cuh"
#include "kernels/attention/rope_head.cuh"
#include "kernels/attention/sm90_decode_requests.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/mailbox.cuh"
#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mma.cuh"

namespace braid::kernels {

// The weighted sum of parts, each with its own maximum (as a power of two) and sum of weights.
struct JoinedSum {
  float max = -INFINITY, sum = 0;
  float4 out = {};

  // Once max is that of all parts.
  __device__ __forceinline__ void add(float2 max_and_sum, const float4& part) {
    const float weight = exp2_approximate(max_and_sum.x - max);
    sum = fmaf(weight, max_and_sum.y, sum);
    out.x = fmaf(weight, part.x, out.x);
    out.y = fmaf(weight, part.y, out.y);
    out.z = fmaf(weight, part.z, out.z);
    out.w = fmaf(weight, part.w, out.w);
  }
};

template <class Config>
class DecodeWarp {
 public:
  static constexpr int kDim = Config::kDim, kHeadTiles = Config::kHeadTiles;
  using Elements = KvElements<Config::kFormat>;

  __device__ DecodeWarp(const AttentionBf16Params& p, const RopeKvWriteBf16Params& rope,
                        const AttentionWorkspace& workspace, DecodeShared<Config>& shared, int warp,
                        int lane, bool waits)
      : p_(p),
        rope_(rope),
        workspace_(workspace),
        shared_(shared),
        warp_(warp),
        lane_(lane),
        group_(p.num_heads / p.kv.num_kv_heads),
        has_rope_(rope.qkv != nullptr),
        waits_(waits) {}

  // The CTA's units, from `begin` to `end`.
  __device__ __forceinline__ void run(int begin, int end) {
    const int last = sequence_of_unit(p_, shared_.first_split, end - 1);
    DecodeRequests<Config> requests(p_, shared_, begin, end, last, !has_rope_, warp_, lane_);
#pragma unroll 1
    for (int i = 0; i < Config::kPieces; ++i) requests.next();
    requests.bring_closer();
    DecodeUnit u = {.sequence = -1};
    bool joins_units = false;
#pragma unroll 1
    for (int index = end - 1;; --index) {
      // The next query is on its way while this unit's sums are joined.
      DecodeUnit next = {.sequence = -1};
      if (index >= begin)
        next = unit_at(p_, shared_.first_split, index, index + 1 < end ? u.sequence : last);
      const bool other_query = next.sequence != u.sequence || next.kv_head != u.kv_head;
      Fetched fetched;
      if (next.sequence >= 0 && other_query) fetch(next, fetched);
      if (u.sequence >= 0) {
        join_warps(u);
#pragma unroll 1
        for (int i = 0; i < Config::kHeldPieces; ++i) requests.next();
        if (other_query && joins_units) join_units(u);
      }
      if (next.sequence < 0) return;
      if (other_query) {
        prepare(next, fetched);
        joins_units = next.has_newest_key() && next.num_splits > 1;
      }
      u = next;
      multiply(u, requests);
    }
  }

 private:
  __device__ __forceinline__ int row() const { return lane_ / 4; }
  __device__ __forceinline__ int column() const { return lane_ % 4; }
  __device__ __forceinline__ int thread() const { return warp_ * 32 + lane_; }

  // --- q, and the newest key and value: a few lanes a head ---
  static constexpr int kLanes = lanes_per_head(kDim);
  static constexpr int kHeadsPerPass = Config::kWarps * (32 / kLanes);
  // Up to kHeads of q, one of k, one of v.
  static constexpr int kPasses = (Config::kHeads + 2 + kHeadsPerPass - 1) / kHeadsPerPass;

  // Of the group's heads, then k, then v: neighbouring heads go to different warps.
  __device__ __forceinline__ int head_of_pass(int pass) const {
    return pass * kHeadsPerPass + lane_ / kLanes * Config::kWarps + warp_;
  }
  __device__ __forceinline__ bool has_head(const DecodeUnit& u, int head) const {
    return lane_ % kLanes * 8 < kDim && head < group_ + (has_rope_ && u.has_newest_key() ? 2 : 0);
  }

  struct Fetched {
    int token;
    int kv_slot;
    uint4 eight[kPasses];
  };

  // Asks for what prepare() needs.
  __device__ __forceinline__ void fetch(const DecodeUnit& u, Fetched& fetched) {
    fetched.token = p_.query_indptr[u.sequence];
    fetched.kv_slot = -1;
    if (has_rope_) {
      fetched.kv_slot = rope_.kv_slot_of_token[fetched.token];
      if (thread() < rope_.rotary_dim / 2)
        shared_.turn[thread()] = rope_turn(u.context_len - 1, rope_.inv_freq[thread()]);
    }
    if (waits_) wait_for_previous_kernel();
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int head = head_of_pass(pass);
      fetched.eight[pass] = make_uint4(0, 0, 0, 0);
      if (!has_head(u, head)) continue;
      const int row = head < group_    ? u.kv_head * group_ + head
                      : head == group_ ? p_.num_heads + u.kv_head
                                       : p_.num_heads + p_.kv.num_kv_heads + u.kv_head;
      fetched.eight[pass] = __ldcg(reinterpret_cast<const uint4*>(
          p_.q + fetched.token * p_.q_stride + int64_t{row} * kDim + lane_ % kLanes * 8));
    }
  }

  // Leaves q where score() looks for it, and the newest key and value beside the ring and in the
  // cache.
  __device__ __forceinline__ void prepare(const DecodeUnit& u, const Fetched& fetched) {
    token_ = fetched.token;
    const int lane_of_head = lane_ % kLanes;
    if (has_rope_) __syncthreads();  // for the turns
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int head = head_of_pass(pass);
      const bool there = has_head(u, head), is_q = head < group_;
      const bool is_v = head > group_;
      uint4 eight = fetched.eight[pass];
      if (has_rope_) {
        const bool has_norm = there && !is_v && (is_q ? rope_.q_norm : rope_.k_norm) != nullptr;
        uint4 weight = make_uint4(0, 0, 0, 0);
        if (has_norm) weight = shared_.norms[!is_q][lane_of_head];
        float x[8];
        unpack_8(eight, x);
        norm_head(x, weight, has_norm, kLanes, kDim, rope_.rms_norm_eps);
        rotate_head(x, shared_.turn, !is_v, rope_.rotary_dim / 2, lane_, lane_of_head);
        if (there && !is_q) {
          const float scale = is_v ? p_.kv.v_scale : p_.kv.k_scale;
          Elements::store_8(shared_.newest[is_v], 8 * lane_of_head, x,
                            Config::kFormat == KvFormat::kE4m3 ? 1.0f / scale : 1.0f);
        }
        eight = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]),
                           pack_bf16(x[6], x[7]));
      }
      if (there && is_q) {
        const int tile = head / 8 * (kDim / 32) + lane_of_head / 4;
        shared_.q[tile * 32 + head % 8 * 4 + lane_of_head % 4] = eight;
      }
    }
    __syncthreads();
    constexpr int kChunks = Config::kRowBytes / 16;
    if (has_rope_ && u.has_newest_key() && fetched.kv_slot >= 0 && thread() < 2 * kChunks) {
      const int block_shift = 31 - __clz(p_.kv.block_size), block = fetched.kv_slot >> block_shift,
                offset = fetched.kv_slot & (p_.kv.block_size - 1);
      const int64_t row = (int64_t{block} * p_.kv.num_kv_heads + u.kv_head) << block_shift | offset;
      auto* const to = reinterpret_cast<uint4*>(thread() < kChunks ? p_.kv.k_cache : p_.kv.v_cache);
      to[row * kChunks + thread() % kChunks] =
          reinterpret_cast<const uint4*>(shared_.newest)[thread()];
    }
  }

  // --- a unit's keys and values ---

  // The warp's sums over its stages. The places of its last pieces are not asked for again yet.
  __device__ __forceinline__ void multiply(const DecodeUnit& u, DecodeRequests<Config>& requests) {
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
      max_[t][0] = max_[t][1] = -INFINITY;
      sum_[t][0] = sum_[t][1] = 0;
#pragma unroll
      for (int m = 0; m < kDim / 16; ++m) {
#pragma unroll
        for (float& o : out_[t][m]) o = 0;
      }
    }
    const int num_stages = u.stages_per_warp<Config>();
    const bool makes_newest = has_rope_ && u.has_newest_key();
    int num_keys = u.num_keys() - warp_ * Config::kStageKeys;  // from this stage on
    int i = 1;
#pragma unroll 1
    for (; num_keys > 0; ++i) {
      const int newest = makes_newest && num_keys <= Config::kStageKeys ? num_keys : 0;
      uint32_t weight[kHeadTiles][2];
      score(wait_for_piece<Config::kPieces - 1>(newest, shared_.newest[0]), num_keys, weight);
      __syncwarp();
      if (i < num_stages || Config::kHeldPieces == 1) requests.next();
      add_values(wait_for_piece<Config::kPieces - Config::kHeldPieces>(newest, shared_.newest[1]),
                 weight);
      __syncwarp();
      if (i < num_stages) requests.next();
      num_keys -= Config::kStageKeys * Config::kWarps;
    }
    if (i <= num_stages) {  // one without keys
      wait_for_piece<Config::kPieces - 1>(0, nullptr);
      if (Config::kHeldPieces == 1) requests.next();
      wait_for_piece<Config::kPieces - Config::kHeldPieces>(0, nullptr);
    }
  }

  // The next piece of the ring, once it has landed; behind it up to kPending have been asked for.
  // Its row `newest` - 1, where there is one, comes from the CTA.
  template <int kPending>
  __device__ __forceinline__ const uint8_t* wait_for_piece(int newest, const uint8_t* row) {
    async_copy_wait<kPending>();
    __syncwarp();
    uint8_t* const piece = shared_.ring[warp_][slot_];
    if (++slot_ == Config::kPieces) slot_ = 0;
    if (newest > 0) {
      if (16 * lane_ < Config::kRowBytes)
        *reinterpret_cast<uint4*>(piece + place_in_piece<Config>(newest - 1, 16 * lane_)) =
            reinterpret_cast<const uint4*>(row)[lane_];
      __syncwarp();
    }
    return piece;
  }

  // Weights of up to 16 keys, of which `num_keys` are the sequence's, as the second product wants
  // them: [8 heads, 16 keys].
  __device__ __forceinline__ void score(const uint8_t* keys, int num_keys,
                                        uint32_t (&weight)[kHeadTiles][2]) {
    const float scale = p_.softmax_scale * 1.4426950408889634f *
                        (Config::kFormat == KvFormat::kE4m3 ? p_.kv.k_scale : 1.0f);  // log2(e)
    // Lane's dims are 32 i + 8 column.. of keys row and row + 8, and so are q's.
    float score[kHeadTiles][2][4] = {};
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      const int byte = (32 * i + 8 * column()) * Elements::kBytes;
      const uint8_t* const at = keys + place_in_piece<Config>(row(), byte);
      const uint4 a = Elements::load_8(at, 0), b = Elements::load_8(at, 8 * kDim);
#pragma unroll
      for (int t = 0; t < kHeadTiles; ++t) {
        const uint4 c = shared_.q[(t * (kDim / 32) + i) * 32 + lane_];
        mma_m16n8k16(score[t][0], make_uint4(a.x, b.x, a.y, b.y), c.x, c.y);
        mma_m16n8k16(score[t][1], make_uint4(a.z, b.z, a.w, b.w), c.z, c.w);
      }
    }
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
      float s[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[e] = (score[t][0][e] + score[t][1][e]) * scale;
        if (row() + 8 * (e / 2) >= num_keys) s[e] = -INFINITY;
      }
      float rescale[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float max = fmaxf(s[e], s[e + 2]);
#pragma unroll
        for (int step = 4; step < 32; step *= 2) max = fmaxf(max, __shfl_xor_sync(~0u, max, step));
        max = fmaxf(max, max_[t][e]);
        rescale[e] = exp2_approximate(max_[t][e] - max);
        max_[t][e] = max;
        s[e] = exp2_approximate(s[e] - max);
        s[e + 2] = exp2_approximate(s[e + 2] - max);
      }
      const uint32_t low = pack_bf16(s[0], s[1]), high = pack_bf16(s[2], s[3]);
      // The sum is that of the rounded weights, so that they come to one.
      const float2 l = bf16_pair(low), h = bf16_pair(high);
      sum_[t][0] = fmaf(sum_[t][0], rescale[0], l.x + h.x);
      sum_[t][1] = fmaf(sum_[t][1], rescale[1], l.y + h.y);
      weight[t][0] = transpose_8x8(low), weight[t][1] = transpose_8x8(high);
#pragma unroll
      for (int m = 0; m < kDim / 16; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out_[t][m][e] *= rescale[e % 2];
      }
    }
  }

  __device__ __forceinline__ void add_values(const uint8_t* values,
                                             const uint32_t (&weight)[kHeadTiles][2]) {
    // Lane's keys are 2 column, the next, and both + 8.
    const auto add_16_dims = [&](int m, uint32_t k0, uint32_t k1, uint32_t k8, uint32_t k9) {
      // Rows of the tile: dims 2 of a pair, first in row, second in row + 8.
      const uint4 a = make_uint4(__byte_perm(k0, k1, 0x5410), __byte_perm(k0, k1, 0x7632),
                                 __byte_perm(k8, k9, 0x5410), __byte_perm(k8, k9, 0x7632));
#pragma unroll
      for (int t = 0; t < kHeadTiles; ++t) mma_m16n8k16(out_[t][m], a, weight[t][0], weight[t][1]);
    };
    const int key = 2 * column();
#pragma unroll
    for (int c = 0; c < kDim / 64; ++c) {
      const int byte = (64 * c + 8 * row()) * Elements::kBytes;
      const uint8_t *const even = values + place_in_piece<Config>(key, byte),
                           *const odd = values + place_in_piece<Config>(key + 1, byte);
      const uint4 k0 = Elements::load_8(even, 0), k1 = Elements::load_8(odd, 0),
                  k8 = Elements::load_8(even, 8 * kDim), k9 = Elements::load_8(odd, 8 * kDim);
      add_16_dims(4 * c, k0.x, k1.x, k8.x, k9.x);
      add_16_dims(4 * c + 1, k0.y, k1.y, k8.y, k9.y);
      add_16_dims(4 * c + 2, k0.z, k1.z, k8.z, k9.z);
      add_16_dims(4 * c + 3, k0.w, k1.w, k8.w, k9.w);
    }
    if constexpr (kDim % 64 == 32) {
      constexpr int kFirst = kDim / 64 * 64;
      static_assert(!Config::kSwizzles);
      const uint8_t* const at = values + key * Config::kRowBytes;
      const int dim = kFirst + 4 * row();
      const uint2 k0 = Elements::load_4(at, dim), k1 = Elements::load_4(at, dim + kDim),
                  k8 = Elements::load_4(at, dim + 8 * kDim),
                  k9 = Elements::load_4(at, dim + 9 * kDim);
      add_16_dims(kFirst / 16, k0.x, k1.x, k8.x, k9.x);
      add_16_dims(kFirst / 16 + 1, k0.y, k1.y, k8.y, k9.y);
    }
  }

  // --- the joining of sums ---
  static constexpr int kQuads = kDim / 4;
  static constexpr int kHeadsPerRound = Config::kHeads / Config::kJoinRounds;

  // Four sums of values of a head of the round, in the last pieces of warp w. The order spreads
  // what a warp writes at once over banks.
  __device__ __forceinline__ float4* sums_at(int w, int head, int quad) {
    const int pieces_ago = Config::kHeldPieces - head / Config::kHeadsPerPiece;
    const int slot = slot_ < pieces_ago ? slot_ + Config::kPieces - pieces_ago : slot_ - pieces_ago;
    const int swizzle = head / 2 % 2 + head / 4 % 2 * 4;
    return reinterpret_cast<float4*>(shared_.ring[w][slot]) +
           head % Config::kHeadsPerPiece * kQuads + (quad ^ swizzle);
  }

  __device__ __forceinline__ void join_warps(const DecodeUnit& u) {
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float sum = sum_[t][e];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (row() == 0)
          shared_.max_and_sum[warp_][8 * t + 2 * column() + e] = make_float2(max_[t][e], sum);
      }
    }
#pragma unroll
    for (int round = 0; round < Config::kJoinRounds; ++round) {
#pragma unroll
      for (int t = 0; t < kHeadsPerRound / 8; ++t)
        leave_sums(t, out_[round * (kHeadsPerRound / 8) + t]);
      __syncthreads();
      const int first_head = round * kHeadsPerRound,
                num_heads = min(kHeadsPerRound, group_ - first_head);
      for (int i = thread(); i < num_heads * kQuads; i += Config::kThreads) {
        const int head = i / kQuads, quad = i % kQuads;
        JoinedSum joined;
#pragma unroll
        for (int w = 0; w < Config::kWarps; ++w)
          joined.max = fmaxf(joined.max, shared_.max_and_sum[w][first_head + head].x);
#pragma unroll
        for (int w = 0; w < Config::kWarps; ++w)
          joined.add(shared_.max_and_sum[w][first_head + head], *sums_at(w, head, quad));
        store_unit(u, first_head + head, quad, joined);
      }
      __syncthreads();
    }
  }

  // Tile t of the round.
  __device__ __forceinline__ void leave_sums(int t, const float (&out)[kDim / 16][4]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int head = 8 * t + 2 * column() + e;
#pragma unroll
      for (int m = 0; m < kDim / 16; m += 2) {
        const int quad = m < kDim / 64 * 4 ? m / 4 * 16 + 2 * row() + m % 4 / 2 : m * 4 + row();
        *sums_at(warp_, head, quad) =
            make_float4(out[m][e], out[m][e + 2], out[m + 1][e], out[m + 1][e + 2]);
      }
    }
  }

  __device__ __forceinline__ int64_t row_of_head(const DecodeUnit& u, int split, int head) const {
    return ((int64_t{u.sequence} * p_.kv.num_kv_heads + u.kv_head) * kMaxSplits + split) * group_ +
           head;
  }

  // The output, or a partial sum of the unit.
  __device__ __forceinline__ void store_unit(const DecodeUnit& u, int head, int quad,
                                             const JoinedSum& joined) {
    if (u.num_splits == 1) return store(u, head, quad, joined);
    const int64_t row = row_of_head(u, u.split, head);
    post(reinterpret_cast<float4*>(workspace_.partial_out) + row * kQuads + quad, joined.out);
    if (quad == 0)
      post(reinterpret_cast<float2*>(workspace_.max_and_sum) + row,
           make_float2(joined.max, joined.sum));
  }

  // Waits for the sums of all units of the sequence and joins them. Those of this CTA are done, and
  // others are those of CTAs with lower numbers, which wait for none with higher ones.
  __device__ __forceinline__ void join_units(const DecodeUnit& u) {
    constexpr int kBatch = 12;  // what the registers have room for
    const int stride = group_ * kQuads, num_pairs = u.num_splits * group_;
    auto* const max_and_sum =
        reinterpret_cast<float2*>(workspace_.max_and_sum) + row_of_head(u, 0, 0);
    auto* const out =
        reinterpret_cast<float4*>(workspace_.partial_out) + row_of_head(u, 0, 0) * kQuads;
    int pair = thread();  // of max_and_sum, for all threads
#pragma unroll 1
    for (int base = 0; base < stride; base += Config::kThreads) {
      const int i = base + thread();
      JoinedSum joined;
#pragma unroll 1
      for (int first = 0; first < u.num_splits; first += kBatch) {
        const int num_parts = i < stride ? u.num_splits - first : 0;
        float4 part[kBatch] = {};
        float2 max_sum = {};
        bool there;
        do {
          if (pair < num_pairs) max_sum = look(max_and_sum + pair);
          there = pair >= num_pairs || is_there(max_sum);
          const float4* at = out + first * stride + i;
#pragma unroll
          for (int s = 0; s < kBatch; ++s, at += stride) {
            if (s < num_parts) part[s] = look(at);
            asm volatile("" : "+l"(at));  // addresses are cheaper than the registers to keep them
          }
#pragma unroll
          for (int s = 0; s < kBatch; ++s) there &= s >= num_parts | is_there(part[s]);
        } while (!there);
        if (base == 0 && first == 0) {
          while (pair < num_pairs) {
            shared_.unit_max_and_sum[pair] = max_sum;
            max_and_sum[pair] = make_float2(0, 0);
            pair += Config::kThreads;
            if (pair < num_pairs) {
              do {
                max_sum = look(max_and_sum + pair);
              } while (!is_there(max_sum));
            }
          }
          __syncthreads();
        }
        const float2* const of_head = shared_.unit_max_and_sum + i / kQuads;
        if (first == 0) {
#pragma unroll 4
          for (int s = 0; s < num_parts; ++s) joined.max = fmaxf(joined.max, of_head[s * group_].x);
        }
        float4* to = out + first * stride + i;
#pragma unroll
        for (int s = 0; s < kBatch; ++s, to += stride) {
          asm volatile("" : "+l"(to));
          if (s >= num_parts) continue;
          joined.add(of_head[(first + s) * group_], part[s]);
          *to = make_float4(0, 0, 0, 0);
        }
      }
      if (i < stride) store(u, i / kQuads, i % kQuads, joined);
    }
  }

  __device__ __forceinline__ void store(const DecodeUnit& u, int head, int quad,
                                        const JoinedSum& joined) {
    const float scale = (Config::kFormat == KvFormat::kE4m3 ? p_.kv.v_scale : 1.0f) / joined.sum;
    auto* const out = reinterpret_cast<uint2*>(p_.out) +
                      (int64_t{token_} * p_.num_heads + u.kv_head * group_ + head) * kQuads + quad;
    *out = make_uint2(pack_bf16(joined.out.x * scale, joined.out.y * scale),
                      pack_bf16(joined.out.z * scale, joined.out.w * scale));
  }

  const AttentionBf16Params& p_;
  const RopeKvWriteBf16Params& rope_;
  const AttentionWorkspace& workspace_;
  DecodeShared<Config>& shared_;
  const int warp_, lane_;
  const int group_;  // heads that share a KV head
  const bool has_rope_;
  const bool waits_;  // for the previous kernel

  int slot_ = 0;  // of the ring
  int token_ = 0;
  // Of heads 8 t + 2 column and the next.
  float max_[kHeadTiles][2], sum_[kHeadTiles][2];
  float out_[kHeadTiles][kDim / 16][4];
};

}  // namespace braid::kernels

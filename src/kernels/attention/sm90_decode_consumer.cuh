#pragma once

// The warps that multiply: scores, weights, values, and the joining of their sums.

#include <cstdint>

#include "kernels/attention/decode_units.cuh"
#include "kernels/attention/kv_elements.cuh"
#include "kernels/common/bulk_copy.cuh"
#include "kernels/common/counter.cuh"
#include "kernels/common/grid_dependency.cuh"
#include "kernels/common/matrix_move.cuh"
#include "kernels/common/mbarrier.cuh"
#include "kernels/common/mma.cuh"

namespace braid::kernels {

// The weighted sum of parts, each with its own maximum (as a power of two) and sum of weights:
// `load` gives part i's. Parts are added in their order.
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
template <int kUnroll, class LoadMaxAndSum, class LoadOut>
__device__ __forceinline__ JoinedSum join_parts(int count, LoadMaxAndSum load_max_and_sum,
                                                LoadOut load_out) {
  JoinedSum joined;
#pragma unroll kUnroll
  for (int i = 0; i < count; ++i) joined.max = fmaxf(joined.max, load_max_and_sum(i).x);
#pragma unroll kUnroll
  for (int i = 0; i < count; ++i) {
    joined.add(load_max_and_sum(i), load_out(i));
  }
  return joined;
}

template <class Config>
class DecodeConsumer {
 public:
  static constexpr int kDim = Config::kDim, kHeadTiles = Config::kHeadTiles;
  using Elements = KvElements<Config::kFormat>;

  __device__ DecodeConsumer(const AttentionBf16Params& p, const AttentionWorkspace& workspace,
                            DecodeShared<Config>& shared, int warp, int lane)
      : p_(p),
        workspace_(workspace),
        shared_(shared),
        warp_(warp),
        lane_(lane),
        row_(lane / 4),
        column_(lane % 4),
        group_(p.num_heads / p.kv.num_kv_heads) {}

  __device__ __forceinline__ void run() {
    uint32_t first_stage = 0;  // of the unit, counted from the kernel's start
    DecodeUnit u = take_unit(0);
    if (u.sequence < 0) return;
    // q and the workspace come from earlier kernels.
    wait_for_previous_kernel();
    load_q(u);
    for (int index = 1; u.sequence >= 0; ++index) {
      start();
      const int num_stages = u.num_stages(Config::kStageKeys, Config::kConsumers);
      for (int i = warp_; i < num_stages; i += Config::kConsumers) {
        const uint32_t count = first_stage + i, slot = count % Config::kStages;
        mbarrier_wait(&shared_.full[slot], count / Config::kStages % 2);
        const int num_keys = u.num_keys - i * Config::kStageKeys;
        if (num_keys > 0) add_keys(shared_.ring[slot][0], shared_.ring[slot][1], num_keys);
        __syncwarp();
        if (lane_ == 0) mbarrier_arrive(&shared_.empty[slot]);
      }
      first_stage += num_stages;
      // The next q is on its way while this unit's sums are joined.
      const DecodeUnit next = take_unit(index);
      if (!Config::kQInShared && next.sequence >= 0) load_q(next);
      finish(u);
      if (Config::kQInShared && next.sequence >= 0) load_q(next);
      u = next;
    }
    find_out_if_last();
    if (!pending_) return;
    barrier();
    join_units();
  }

 private:
  static __device__ __forceinline__ void barrier() {
    asm volatile("bar.sync 1, %0;" ::"n"(32 * Config::kConsumers) : "memory");
  }

  __device__ __forceinline__ DecodeUnit take_unit(int index) {
    return braid::kernels::take_unit(shared_, index, lane_);
  }

  __device__ __forceinline__ void load_q(const DecodeUnit& u) {
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
      const int head = 8 * t + row_;
      const Bf16* const q =
          p_.q + u.token * p_.q_stride + (int64_t{u.kv_head} * group_ + head) * kDim + 8 * column_;
#pragma unroll
      for (int i = 0; i < kDim / 32; ++i) {
        if (Config::kQInShared && i % Config::kConsumers != warp_) continue;
        uint4 eight = make_uint4(0, 0, 0, 0);
        if (head < group_) eight = __ldcg(reinterpret_cast<const uint4*>(q + 32 * i));
        if constexpr (Config::kQInShared) {
          shared_.q[(t * (kDim / 32) + i) * 32 + lane_] = eight;
        } else {
          q_[t][i] = eight;
        }
      }
    }
    if constexpr (Config::kQInShared) barrier();
  }

  __device__ __forceinline__ void start() {
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
  }

  // Elements 32 i + 8 column.. of head 8 t + row.
  __device__ __forceinline__ uint4 q(int t, int i) const {
    if constexpr (Config::kQInShared) return shared_.q[(t * (kDim / 32) + i) * 32 + lane_];
    return q_[t][i];
  }

  // Up to 16 keys and values; `num_keys` of them are the sequence's.
  __device__ __forceinline__ void add_keys(uint8_t* keys, uint8_t* values, int num_keys) {
    const float scale = p_.softmax_scale * 1.4426950408889634f *
                        (Config::kFormat == KvFormat::kE4m3 ? p_.kv.k_scale : 1.0f);  // log2(e)
    if (num_keys < Config::kStageKeys) {
      // What a block holds past the sequence's end may be anything, and 0 * NaN is not 0.
      constexpr int kWordsPerKey = kDim * Elements::kBytes / 4;
      for (int i = num_keys * kWordsPerKey + lane_; i < Config::kStageKeys * kWordsPerKey; i += 32)
        reinterpret_cast<uint32_t*>(values)[i] = 0;
      // Before the copy engine writes there again.
      fence_proxy_async_shared();
      __syncwarp();
    }

    // --- scores: lane's dims are 32 i + 8 column.. of keys row and row + 8, and so are q's ---
    float score[kHeadTiles][2][4] = {};
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      const int dim = 32 * i + 8 * column_;
      const uint4 a = Elements::load_8(keys, row_ * kDim + dim),
                  b = Elements::load_8(keys, (row_ + 8) * kDim + dim);
#pragma unroll
      for (int t = 0; t < kHeadTiles; ++t) {
        const uint4 c = q(t, i);
        mma_m16n8k16(score[t][0], make_uint4(a.x, b.x, a.y, b.y), c.x, c.y);
        mma_m16n8k16(score[t][1], make_uint4(a.z, b.z, a.w, b.w), c.z, c.w);
      }
    }

    // --- weights, [16 keys, 8 heads] as [8 heads, 16 keys] ---
    uint32_t weight[kHeadTiles][2];
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
      float s[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[e] = (score[t][0][e] + score[t][1][e]) * scale;
        if (row_ + 8 * (e / 2) >= num_keys) s[e] = -INFINITY;
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

    // --- values: lane's keys are 2 column, the next, and both + 8 ---
    const auto add_16_dims = [&](int m, uint32_t k0, uint32_t k1, uint32_t k8, uint32_t k9) {
      // Rows of the tile: dims 2 of a pair, first in row, second in row + 8.
      const uint4 a = make_uint4(__byte_perm(k0, k1, 0x5410), __byte_perm(k0, k1, 0x7632),
                                 __byte_perm(k8, k9, 0x5410), __byte_perm(k8, k9, 0x7632));
#pragma unroll
      for (int t = 0; t < kHeadTiles; ++t) mma_m16n8k16(out_[t][m], a, weight[t][0], weight[t][1]);
    };
    const int key = 2 * column_ * kDim;
#pragma unroll
    for (int c = 0; c < kDim / 64; ++c) {
      const int dim = 64 * c + 8 * row_;
      const uint4 k0 = Elements::load_8(values, key + dim),
                  k1 = Elements::load_8(values, key + kDim + dim),
                  k8 = Elements::load_8(values, key + 8 * kDim + dim),
                  k9 = Elements::load_8(values, key + 9 * kDim + dim);
      add_16_dims(4 * c, k0.x, k1.x, k8.x, k9.x);
      add_16_dims(4 * c + 1, k0.y, k1.y, k8.y, k9.y);
      add_16_dims(4 * c + 2, k0.z, k1.z, k8.z, k9.z);
      add_16_dims(4 * c + 3, k0.w, k1.w, k8.w, k9.w);
    }
    if constexpr (kDim % 64 == 32) {
      constexpr int kFirst = kDim / 64 * 64;
      const int dim = kFirst + 4 * row_;
      const uint2 k0 = Elements::load_4(values, key + dim),
                  k1 = Elements::load_4(values, key + kDim + dim),
                  k8 = Elements::load_4(values, key + 8 * kDim + dim),
                  k9 = Elements::load_4(values, key + 9 * kDim + dim);
      add_16_dims(kFirst / 16, k0.x, k1.x, k8.x, k9.x);
      add_16_dims(kFirst / 16 + 1, k0.y, k1.y, k8.y, k9.y);
    }
  }

  // Joins the warps' sums. Whether all units of the sequence are done is asked, but not waited for:
  // the answer is looked at a unit later.
  __device__ __forceinline__ void finish(const DecodeUnit& u) {
    // --- sums of the warps ---
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float sum = sum_[t][e];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (row_ == 0)
          shared_.max_and_sum[warp_][8 * t + 2 * column_ + e] = make_float2(max_[t][e], sum);
      }
    }
    if (warp_ < Config::kJoinWarps) leave_out();
    find_out_if_last();
    barrier();
    join_units();

    // --- join them ---
    constexpr int kQuads = kDim / 4, kThreads = 32 * Config::kConsumers;
    const auto part = [&](int w, int head, int dim) {
      return *reinterpret_cast<const float4*>(&shared_.out[w][head][dim]);
    };
    if constexpr (Config::kJoinRounds == 1) {
      for (int i = threadIdx.x; i < group_ * kQuads; i += kThreads) {
        const int head = i / kQuads, dim = i % kQuads * 4;
        store_unit(u, head, dim,
                   join_parts<Config::kConsumers>(
                       Config::kConsumers, [&](int w) { return shared_.max_and_sum[w][head]; },
                       [&](int w) { return part(w, head, dim); }));
      }
    } else {
      static_assert(Config::kJoinRounds == 2 && Config::kHeads * kQuads <= kThreads);
      const int head = threadIdx.x / kQuads, dim = threadIdx.x % kQuads * 4;
      const bool joins = head < group_;
      JoinedSum joined;
      const auto add_round = [&](int first) {
#pragma unroll
        for (int w = 0; w < Config::kJoinWarps; ++w)
          joined.add(shared_.max_and_sum[first + w][head], part(w, head, dim));
      };
      if (joins) {
#pragma unroll
        for (int w = 0; w < Config::kConsumers; ++w)
          joined.max = fmaxf(joined.max, shared_.max_and_sum[w][head].x);
        add_round(0);
      }
      barrier();
      if (warp_ >= Config::kJoinWarps) leave_out();
      barrier();
      if (joins) {
        add_round(Config::kJoinWarps);
        store_unit(u, head, dim, joined);
      }
    }
    barrier();
    pending_ = u.num_splits > 1;
    if (!pending_) return;
    pending_unit_ = u;
    if (threadIdx.x == 0) {
      // What all of the CTA wrote before the barrier.
      splits_done_before_ = fetch_count_release(
          workspace_.splits_done + int64_t{u.sequence} * p_.kv.num_kv_heads + u.kv_head);
    }
  }

  // This warp's sums of values, for the others.
  __device__ __forceinline__ void leave_out() {
#pragma unroll
    for (int t = 0; t < kHeadTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float* const out = shared_.out[warp_ % Config::kJoinWarps][8 * t + 2 * column_ + e];
#pragma unroll
        for (int m = 0; m < kDim / 16; ++m) {
          const bool eight = m < kDim / 64 * 4;
          const int dim =
              eight ? m / 4 * 64 + 8 * row_ + 2 * (m % 4) : kDim / 64 * 64 + 4 * row_ + 2 * (m % 4);
          *reinterpret_cast<float2*>(out + dim) = make_float2(out_[t][m][e], out_[t][m][e + 2]);
        }
      }
    }
  }

  // The output, or a partial sum of the unit.
  __device__ __forceinline__ void store_unit(const DecodeUnit& u, int head, int dim,
                                             const JoinedSum& joined) {
    if (u.num_splits == 1) return store(u, head, dim, joined);
    const int64_t row =
        ((int64_t{u.sequence} * p_.kv.num_kv_heads + u.kv_head) * kMaxSplits + u.split) * group_ +
        head;
    *reinterpret_cast<float4*>(workspace_.partial_out + row * kDim + dim) = joined.out;
    if (dim == 0) {
      reinterpret_cast<float2*>(workspace_.max_and_sum)[row] = make_float2(joined.max, joined.sum);
    }
  }

  // The answer, for all after the next barrier.
  __device__ __forceinline__ void find_out_if_last() {
    if (!pending_ || threadIdx.x != 0) return;
    const DecodeUnit& u = pending_unit_;
    shared_.is_last = splits_done_before_ == u.num_splits - 1;
    if (!shared_.is_last) return;
    workspace_.splits_done[int64_t{u.sequence} * p_.kv.num_kv_heads + u.kv_head] = 0;
    __threadfence();
  }

  // Joins the units of the sequence whose last one this CTA ended before, if it did.
  __device__ __forceinline__ void join_units() {
    if (!pending_ || !shared_.is_last) return;
    constexpr int kQuads = kDim / 4;
    const DecodeUnit& u = pending_unit_;
    const int64_t first_row =
        (int64_t{u.sequence} * p_.kv.num_kv_heads + u.kv_head) * kMaxSplits * group_;
    for (int i = threadIdx.x; i < group_ * kQuads; i += 32 * Config::kConsumers) {
      const int head = i / kQuads, dim = i % kQuads * 4;
      const float2* const max_and_sum =
          reinterpret_cast<const float2*>(workspace_.max_and_sum) + first_row + head;
      const float* const out = workspace_.partial_out + (first_row + head) * kDim + dim;
      const JoinedSum joined = join_parts<8>(
          u.num_splits, [&](int s) { return __ldcg(max_and_sum + s * group_); },
          [&](int s) {
            return __ldcg(reinterpret_cast<const float4*>(out + int64_t{s} * group_ * kDim));
          });
      store(u, head, dim, joined);
    }
  }

  __device__ __forceinline__ void store(const DecodeUnit& u, int head, int dim,
                                        const JoinedSum& joined) {
    const float scale = (Config::kFormat == KvFormat::kE4m3 ? p_.kv.v_scale : 1.0f) / joined.sum;
    Bf16* const out =
        p_.out + (int64_t{u.token} * p_.num_heads + u.kv_head * group_ + head) * kDim + dim;
    *reinterpret_cast<uint2*>(out) =
        make_uint2(pack_bf16(joined.out.x * scale, joined.out.y * scale),
                   pack_bf16(joined.out.z * scale, joined.out.w * scale));
  }

  const AttentionBf16Params& p_;
  const AttentionWorkspace& workspace_;
  DecodeShared<Config>& shared_;
  const int warp_, lane_;
  const int row_, column_;  // lane / 4, lane % 4
  const int group_;         // heads that share a KV head

  uint4 q_[kHeadTiles][kDim / 32];  // where it is not in shared memory
  bool pending_ = false;  // pending_unit_ is one of several, and shared_.is_last is about it
  DecodeUnit pending_unit_;
  int splits_done_before_ = 0;  // thread 0's
  // Of heads 8 t + 2 column and the next.
  float max_[kHeadTiles][2], sum_[kHeadTiles][2];
  float out_[kHeadTiles][kDim / 16][4];
};

}  // namespace braid::kernels

#include "cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/attention.h"
#include "cpu/rounding.h"
#include "cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace braid::cpu::HWY_NAMESPACE {

// Keys of a tile, which share a maximum: a KV block, or, where the maximum decides how weights
// are rounded, the 128 keys of a GPU's prefill.
int32_t tile_keys(const kernels::AttentionParams& p, Rounding rounding) {
  if (rounding == Rounding::kNone) return p.block_size;
  return std::max(1, 128 / p.block_size) * p.block_size;
}

// One query token at one key head: its group of query heads over the sequence's keys, tile by tile
// in position order with a running maximum. Tile borders depend on positions alone.
//
// scratch: group * (tile_keys + 2) floats.
void attend(const kernels::AttentionParams& p, int32_t token, int32_t sequence, int32_t position,
            int32_t kv_head, Rounding rounding, float* scratch) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t dim = p.head_dim, row_stride = int64_t{p.num_kv_heads} * dim;
  const int32_t group = p.num_heads / p.num_kv_heads;
  const float* q = p.q + token * p.q_stride + int64_t{kv_head} * group * dim;
  float* out = p.out + (int64_t{token} * p.num_heads + int64_t{kv_head} * group) * dim;
  const int32_t tile = tile_keys(p, rounding);
  float* scores = scratch;                 // [group, tile]
  float* largest = scores + group * tile;  // [group]
  float* total = largest + group;          // [group]
  std::fill_n(out, group * dim, 0.0f);
  std::fill_n(largest, group, -std::numeric_limits<float>::infinity());
  std::fill_n(total, group, 0.0f);

  const int32_t* blocks = p.block_table + int64_t{sequence} * p.max_kv_blocks;
  for (int32_t first = 0; first <= position; first += tile) {
    const int32_t count = std::min(tile, position + 1 - first);
    // body(j, offset in the cache) for each key first + j.
    const auto for_each_key = [&](const auto& body) {
      for (int32_t in_tile = 0; in_tile < count; in_tile += p.block_size) {
        const int64_t block = blocks[(first + in_tile) / p.block_size];
        int64_t at = (block * p.block_size * p.num_kv_heads + kv_head) * dim;
        const int32_t end = std::min(count, in_tile + p.block_size);
        for (int32_t j = in_tile; j < end; ++j, at += row_stride) body(j, at);
      }
    };
    for_each_key([&](int32_t j, int64_t at) {
      const float* key = p.k_cache + at;
      for (int32_t g = 0; g < group; ++g) {
        V sum = hn::Zero(d);
        int64_t i = 0;
        for (; i + lanes <= dim; i += lanes)
          sum = hn::MulAdd(F32Row::load(key + i), hn::LoadU(d, q + g * dim + i), sum);
        if (i < dim) {
          const auto rest = static_cast<size_t>(dim - i);
          sum =
              hn::MulAdd(F32Row::load_n(key + i, rest), load_first(d, q + g * dim + i, rest), sum);
        }
        scores[g * tile + j] = p.softmax_scale * hn::GetLane(hn::SumOfLanes(d, sum));
      }
    });
    for (int32_t g = 0; g < group; ++g) {
      float* s = scores + g * tile;
      const float before = largest[g];
      for (int32_t j = 0; j < count; ++j) largest[g] = std::max(largest[g], s[j]);
      const float shrink = std::exp(before - largest[g]);  // 0 at the first block
      total[g] *= shrink;
      for (int32_t j = 0; j < count; ++j) total[g] += s[j] = std::exp(s[j] - largest[g]);
      if (rounding == Rounding::kBf16) round_to_bf16(s, count);
      if (shrink != 1.0f) {
        for (int64_t i = 0; i < dim; ++i) out[g * dim + i] *= shrink;
      }
    }
    for_each_key([&](int32_t j, int64_t at) {
      const float* value = p.v_cache + at;
      for (int32_t g = 0; g < group; ++g) {
        const V weight = hn::Set(d, scores[g * tile + j]);
        float* o = out + g * dim;
        int64_t i = 0;
        for (; i + lanes <= dim; i += lanes) {
          hn::StoreU(hn::MulAdd(F32Row::load(value + i), weight, hn::LoadU(d, o + i)), d, o + i);
        }
        if (i < dim) {
          const auto rest = static_cast<size_t>(dim - i);
          store_first(
              hn::MulAdd(F32Row::load_n(value + i, rest), weight, load_first(d, o + i, rest)),
              o + i, rest);
        }
      }
    });
  }
  for (int32_t g = 0; g < group; ++g) {
    const float inverse = 1.0f / total[g];
    for (int64_t i = 0; i < dim; ++i) out[g * dim + i] *= inverse;
  }
  if (rounding == Rounding::kBf16) round_to_bf16(out, group * dim);
}

void attention_impl(ThreadPool& pool, const kernels::AttentionParams& p, Rounding rounding) {
  const int32_t num_tokens = p.query_indptr[p.num_sequences];
  std::vector<int32_t> sequence_of_token(static_cast<size_t>(num_tokens));
  for (int32_t s = 0; s < p.num_sequences; ++s) {
    for (int32_t t = p.query_indptr[s]; t < p.query_indptr[s + 1]; ++t)
      sequence_of_token[static_cast<size_t>(t)] = s;
  }
  const size_t scratch = static_cast<size_t>(p.num_heads / p.num_kv_heads) *
                         static_cast<size_t>(tile_keys(p, rounding) + 2);
  pool.parallel_for(int64_t{num_tokens} * p.num_kv_heads, [&](int64_t chunk, int32_t thread) {
    const auto token = static_cast<int32_t>(chunk / p.num_kv_heads);
    const int32_t s = sequence_of_token[static_cast<size_t>(token)];
    const int32_t position = p.context_len[s] - (p.query_indptr[s + 1] - token);
    attend(p, token, s, position, static_cast<int32_t>(chunk % p.num_kv_heads), rounding,
           pool.scratch(thread, scratch));
  });
}

}  // namespace braid::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace braid::cpu {

HWY_EXPORT(attention_impl);

void attention(ThreadPool& pool, const kernels::AttentionParams& p, Rounding rounding) {
  HWY_DYNAMIC_DISPATCH(attention_impl)(pool, p, rounding);
}

namespace {

void norm_head(float* x, const float* weight, int32_t dim, float eps) {
  float squares = 0;
  for (int32_t i = 0; i < dim; ++i) squares += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
  for (int32_t i = 0; i < dim; ++i) x[i] *= scale * weight[i];
}

// Rotate-half form: (x_i, x_{i + half}) turned by position * inv_freq_i.
void rotate_head(float* x, const float* cosine, const float* sine, int32_t half) {
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosine[i] - b * sine[i];
    x[i + half] = b * cosine[i] + a * sine[i];
  }
}

}  // namespace

void rope_kv_write(ThreadPool& pool, const kernels::RopeKvWriteParams& p, Rounding rounding) {
  constexpr int64_t kTokens = 8;
  const int32_t half = p.rotary_dim / 2, dim = p.head_dim;
  pool.parallel_for((p.num_tokens + kTokens - 1) / kTokens, [&](int64_t chunk, int32_t thread) {
    float* cosine = pool.scratch(thread, static_cast<size_t>(2 * half));
    float* sine = cosine + half;
    for (int64_t t = chunk * kTokens; t < std::min<int64_t>(p.num_tokens, (chunk + 1) * kTokens);
         ++t) {
      for (int32_t i = 0; i < half; ++i) {
        // As transformers has it: the angle is a float product.
        const float angle = static_cast<float>(p.positions[t]) * p.inv_freq[i];
        cosine[i] = std::cos(angle);
        sine[i] = std::sin(angle);
      }
      for (int32_t h = 0; h < p.num_heads; ++h) {
        float* q = p.q + t * p.q_stride + int64_t{h} * dim;
        if (p.q_norm != nullptr) norm_head(q, p.q_norm, dim, p.rms_norm_eps);
        rotate_head(q, cosine, sine, half);
        if (rounding == Rounding::kBf16) round_to_bf16(q, dim);
      }
      const int64_t row = int64_t{p.kv_slot_of_token[t]} * p.num_kv_heads * dim;
      for (int32_t h = 0; h < p.num_kv_heads; ++h) {
        float* k = p.k + t * p.k_stride + int64_t{h} * dim;
        const float* v = p.v + t * p.v_stride + int64_t{h} * dim;
        if (p.k_norm != nullptr) norm_head(k, p.k_norm, dim, p.rms_norm_eps);
        rotate_head(k, cosine, sine, half);
        if (rounding == Rounding::kBf16) round_to_bf16(k, dim);
        for (int32_t i = 0; i < dim; ++i) {
          p.k_cache[row + int64_t{h} * dim + i] = k[i];
          p.v_cache[row + int64_t{h} * dim + i] = v[i];
        }
      }
    }
  });
}

}  // namespace braid::cpu
#endif

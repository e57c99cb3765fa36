#include "cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/elementwise.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// After foreach_target.h.
#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>

#include "base/ids.h"
#include "cpu/elementwise.h"
#include "cpu/rounding.h"
#include "cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace braid::cpu::HWY_NAMESPACE {

void norm_row(float* residual, const float* delta, const float* weight, float* y, int64_t n,
              float eps, Rounding rounding) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V squares = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes) {
    const auto count = static_cast<size_t>(std::min(lanes, n - i));
    const bool whole = static_cast<int64_t>(count) == lanes;
    V x = whole ? hn::LoadU(d, residual + i) : load_first(d, residual + i, count);
    if (delta != nullptr) {
      x = hn::Add(x, whole ? hn::LoadU(d, delta + i) : load_first(d, delta + i, count));
      if (rounding == Rounding::kBf16) x = nearest_bf16(x);
      if (whole) {
        hn::StoreU(x, d, residual + i);
      } else {
        store_first(x, residual + i, count);
      }
    }
    squares = hn::MulAdd(x, x, squares);
  }
  const float mean = hn::GetLane(hn::SumOfLanes(d, squares)) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = residual[i] * scale * weight[i];
  if (rounding == Rounding::kBf16) round_to_bf16(y, n);
}

void rms_norm_impl(ThreadPool& pool, const kernels::RmsNormParams& p, Rounding rounding) {
  constexpr int64_t kTokens = 8;
  pool.parallel_for((p.num_tokens + kTokens - 1) / kTokens, [&](int64_t chunk, int32_t) {
    for (int64_t t = chunk * kTokens; t < std::min<int64_t>(p.num_tokens, (chunk + 1) * kTokens);
         ++t) {
      const int64_t at = t * p.hidden_size;
      norm_row(p.residual + at, p.delta == nullptr ? nullptr : p.delta + at, p.weight, p.y + at,
               p.hidden_size, p.eps, rounding);
    }
  });
}

// g / (1 + e^-g) * u. From -89 down e^-g is infinite and silu 0, to within a denormal; the bound
// keeps exp within the range where it is defined.
HWY_INLINE V silu_mul(V gate, V up) {
  const D d;
  const V bounded = hn::Max(gate, hn::Set(d, -100.0f));
  const V e = hn::Exp(d, hn::Neg(bounded));
  return hn::Mul(hn::Div(gate, hn::Add(hn::Set(d, 1.0f), e)), up);
}

void silu_mul_row_impl(const float* gate, const float* up, float* z, int64_t n) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(silu_mul(hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d, z + i);
  }
  if (i < n) {
    const auto rest = static_cast<size_t>(n - i);
    store_first(silu_mul(load_first(d, gate + i, rest), load_first(d, up + i, rest)), z + i, rest);
  }
}

}  // namespace braid::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace braid::cpu {

HWY_EXPORT(rms_norm_impl);
HWY_EXPORT(silu_mul_row_impl);

void rms_norm(ThreadPool& pool, const kernels::RmsNormParams& p, Rounding rounding) {
  HWY_DYNAMIC_DISPATCH(rms_norm_impl)(pool, p, rounding);
}

void silu_mul_row(const float* gate, const float* up, float* z, int64_t n) {
  HWY_DYNAMIC_DISPATCH(silu_mul_row_impl)(gate, up, z, n);
}

void silu_mul(ThreadPool& pool, const kernels::SiluMulParams& p, Rounding rounding) {
  constexpr int64_t kElements = 4096;
  pool.parallel_for((p.num_elements + kElements - 1) / kElements, [&](int64_t chunk, int32_t) {
    const int64_t begin = chunk * kElements, count = std::min(kElements, p.num_elements - begin);
    silu_mul_row(p.gate + begin, p.up + begin, p.z + begin, count);
    if (rounding == Rounding::kBf16) round_to_bf16(p.z + begin, count);
  });
}

namespace {

void add_embedding_lora(const kernels::EmbeddingParams& p, int64_t t, float* out) {
  if (p.lora_of_slot == nullptr || p.adapter_slot_of_token[t] == kNoAdapter) return;
  const EmbeddingLora& lora = p.lora_of_slot[p.adapter_slot_of_token[t]];
  const Bf16* a = lora.a_t + int64_t{p.token_ids[t]} * lora.rank;
  for (int64_t h = 0; h < p.table.cols && lora.rank > 0; ++h) {
    float sum = 0;
    for (int32_t r = 0; r < lora.rank; ++r)
      sum += to_float(a[r]) * to_float(lora.b[h * lora.rank + r]);
    out[h] += lora.scaling * sum;
  }
}

}  // namespace

void embedding(ThreadPool& pool, const kernels::EmbeddingParams& p, Rounding rounding) {
  constexpr int64_t kTokens = 16;
  const int64_t hidden = p.table.cols;
  pool.parallel_for((p.num_tokens + kTokens - 1) / kTokens, [&](int64_t chunk, int32_t) {
    for (int64_t t = chunk * kTokens; t < std::min<int64_t>(p.num_tokens, (chunk + 1) * kTokens);
         ++t) {
      float* out = p.out + t * hidden;
      dequantize_row(p.table, p.token_ids[t], out);
      add_embedding_lora(p, t, out);
      if (rounding == Rounding::kBf16) round_to_bf16(out, hidden);
    }
  });
}

}  // namespace braid::cpu
#endif

#include "cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rounding.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/rounding.h"
#include "cpu/vec-inl.h"
#include "kernels/common/tiles.h"
#include "quant/e4m3.h"

HWY_BEFORE_NAMESPACE();
namespace braid::cpu::HWY_NAMESPACE {

// out = round(x) over n elements.
template <class Round>
HWY_INLINE void round_row(const float* x, int64_t n, float* out, const Round& round) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(round(hn::LoadU(d, x + i)), d, out + i);
  if (i < n) {
    const auto rest = static_cast<size_t>(n - i);
    store_first(round(load_first(d, x + i, rest)), out + i, rest);
  }
}

void round_to_bf16_impl(float* x, int64_t n) {
  round_row(x, n, x, [](V v) { return nearest_bf16(v); });
}

// The nearest e4m3, ties to even, as to_e4m3 (quant/e4m3.h).
HWY_INLINE V nearest_e4m3(V v) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const V magnitude = hn::Abs(v);
  const auto bits = hn::BitCast(du, magnitude);
  const auto odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(du, 1u));
  const auto carried = hn::Add(hn::Add(bits, hn::Set(du, 0x7ffffu)), odd);
  const V normal = hn::BitCast(d, hn::And(carried, hn::Set(du, 0xfff00000u)));
  // One unit in the last place of 2^14 is the smallest subnormal.
  const V shift = hn::Set(d, 0x1p14f);
  const V subnormal = hn::Sub(hn::Add(magnitude, shift), shift);
  const V rounded = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0x1p-6f)), subnormal,
                                   hn::Min(normal, hn::Set(d, kE4m3Max)));
  return hn::IfThenElse(hn::IsNaN(v), v, hn::CopySign(rounded, v));
}

float largest_magnitude(const float* x, int64_t n) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V most = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) most = hn::Max(most, hn::Abs(hn::LoadU(d, x + i)));
  if (i < n) most = hn::Max(most, hn::Abs(load_first(d, x + i, static_cast<size_t>(n - i))));
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

void round_to_e4m3_impl(const float* x, int64_t n, int64_t scale_block, float* out) {
  const D d;
  for (int64_t begin = 0; begin < n; begin += scale_block) {
    const int64_t count = std::min(scale_block, n - begin);
    const float scale = kernels::e4m3_scale(largest_magnitude(x + begin, count));
    const V scales = hn::Set(d, scale), inverse = hn::Set(d, 1.0f / scale);
    round_row(x + begin, count, out + begin,
              [&](V v) { return hn::Mul(nearest_e4m3(hn::Mul(v, inverse)), scales); });
  }
}

}  // namespace braid::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace braid::cpu {

HWY_EXPORT(round_to_bf16_impl);
HWY_EXPORT(round_to_e4m3_impl);

void round_to_bf16(float* x, int64_t n) { HWY_DYNAMIC_DISPATCH(round_to_bf16_impl)(x, n); }

void round_to_e4m3(const float* x, int64_t n, int64_t scale_block, float* out) {
  HWY_DYNAMIC_DISPATCH(round_to_e4m3_impl)(x, n, scale_block, out);
}

}  // namespace braid::cpu
#endif

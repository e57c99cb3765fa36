// SwiGLU's middle, one row at a time. Included once for each instruction set.

#if defined(BRAID_CPU_SILU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAID_CPU_SILU_INL_H_
#undef BRAID_CPU_SILU_INL_H_
#else
#define BRAID_CPU_SILU_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstdint>

#include "cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace braid::cpu::HWY_NAMESPACE {

// g / (1 + e^-g) * u. From -89 down e^-g is infinite and silu 0, to within a denormal; the bound
// keeps exp within the range where it is defined.
HWY_INLINE V silu_mul(V gate, V up) {
  const D d;
  const V bounded = hn::Max(gate, hn::Set(d, -100.0f));
  const V e = hn::Exp(d, hn::Neg(bounded));
  return hn::Mul(hn::Div(gate, hn::Add(hn::Set(d, 1.0f), e)), up);
}

// z = silu(gate) * up over n elements; the same bits wherever a row is cut.
HWY_INLINE void silu_mul_row(const float* gate, const float* up, float* z, int64_t n) {
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

#endif

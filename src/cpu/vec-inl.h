// Vectors of floats and how rows of each format are read into them. Included once for each
// instruction set (see Highway's foreach_target), hence the unusual guard.

#if defined(BRAID_CPU_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAID_CPU_VEC_INL_H_
#undef BRAID_CPU_VEC_INL_H_
#else
#define BRAID_CPU_VEC_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "base/bf16.h"

HWY_BEFORE_NAMESPACE();
namespace braid::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// Highway 1.0.3 has no partial loads: the last n < Lanes() elements of a row go through a buffer of
// a whole vector with zeros behind them.
template <class DT, class T>
HWY_INLINE hn::Vec<DT> load_first(DT d, const T* p, size_t n) {
  alignas(64) hn::TFromD<DT> buffer[HWY_MAX_BYTES / sizeof(hn::TFromD<DT>)] = {};
  std::memcpy(buffer, p, n * sizeof(T));
  return hn::Load(d, buffer);
}

HWY_INLINE void store_first(V v, float* p, size_t n) {
  alignas(64) float buffer[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, D(), buffer);
  std::memcpy(p, buffer, n * sizeof(float));
}

// The nearest BF16, ties to even, as to_bf16 (base/bf16.h).
HWY_INLINE V nearest_bf16(V v) {
  const D d;
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto carried = hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd);
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000u));  // of NaN, where a carry runs over
  const auto rounded = hn::IfThenElse(hn::IsNaN(v), hn::BitCast(d, quiet), hn::BitCast(d, carried));
  return hn::And(rounded, hn::BitCast(d, hn::Set(du, 0xffff0000u)));
}

// How a row of each format is read as floats. load() takes a whole vector, load_n() the last n
// lanes of a row with zeros behind them.
struct F32Row {
  using Element = float;
  static HWY_INLINE V load(const float* p) { return hn::LoadU(D(), p); }
  static HWY_INLINE V load_n(const float* p, size_t n) { return load_first(D(), p, n); }
};

struct Bf16Row {
  using Element = Bf16;
  using Narrow = hn::Rebind<uint16_t, D>;
  using Wide = hn::RebindToUnsigned<D>;
  static HWY_INLINE V widen(hn::Vec<Narrow> bits) {
    return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(Wide(), bits)));
  }
  static HWY_INLINE V load(const Bf16* p) {
    return widen(hn::LoadU(Narrow(), reinterpret_cast<const uint16_t*>(p)));
  }
  static HWY_INLINE V load_n(const Bf16* p, size_t n) { return widen(load_first(Narrow(), p, n)); }
};

// e4m3 without its scale. The byte is moved so that its exponent and mantissa end where a float's
// do, 120 short in the exponent's bias: what load() gives is the code's value times 2^-120, exactly
// (subnormal codes become float subnormals). Its scales come with the 2^120 that is missing. NaN
// codes do not occur: loaders refuse them.
struct E4m3Row {
  using Element = uint8_t;
  using Narrow = hn::Rebind<int8_t, D>;
  using Wide = hn::RebindToSigned<D>;
  static HWY_INLINE V widen(hn::Vec<Narrow> codes) {
    // Sign-extended and shifted, the sign fills the bits above the exponent; all but one are
    // masked.
    const auto bits = hn::ShiftLeft<20>(hn::PromoteTo(Wide(), codes));
    return hn::BitCast(D(), hn::And(bits, hn::Set(Wide(), static_cast<int32_t>(0x87f00000u))));
  }
  static HWY_INLINE V load(const uint8_t* p) {
    return widen(hn::LoadU(Narrow(), reinterpret_cast<const int8_t*>(p)));
  }
  static HWY_INLINE V load_n(const uint8_t* p, size_t n) {
    return widen(load_first(Narrow(), p, n));
  }
};

}  // namespace braid::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

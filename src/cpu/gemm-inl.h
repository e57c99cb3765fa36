// Rows of a weight matrix times tokens, the one main loop of linear, MoE and LoRA shrink. Included
// once for each instruction set (see Highway's foreach_target), hence the unusual guard.

#if defined(BRAID_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAID_CPU_GEMM_INL_H_
#undef BRAID_CPU_GEMM_INL_H_
#else
#define BRAID_CPU_GEMM_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/bf16.h"
#include "base/check.h"
#include "quant/e4m3.h"
#include "quant/weight_matrix.h"

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
// do, 120 short in the exponent's bias; one product with 2^120 then makes every code exact,
// subnormals included (they pass through float subnormals). NaN codes do not occur: loaders refuse
// them.
struct E4m3Row {
  using Element = uint8_t;
  using Narrow = hn::Rebind<uint8_t, D>;
  using Wide = hn::RebindToUnsigned<D>;
  using Signed = hn::RebindToSigned<D>;
  static HWY_INLINE V widen(hn::Vec<Narrow> codes) {
    const auto top = hn::BitCast(Signed(), hn::ShiftLeft<24>(hn::PromoteTo(Wide(), codes)));
    const auto bits =
        hn::And(hn::ShiftRight<4>(top), hn::Set(Signed(), static_cast<int32_t>(0x87f00000u)));
    return hn::Mul(hn::BitCast(D(), bits), hn::Set(D(), 0x1p120f));
  }
  static HWY_INLINE V load(const uint8_t* p) { return widen(hn::LoadU(Narrow(), p)); }
  static HWY_INLINE V load_n(const uint8_t* p, size_t n) {
    return widen(load_first(Narrow(), p, n));
  }
};

// kRows rows times kTokens tokens. An element's sum runs over its columns in order, one vector of
// partial sums for each `fold` columns; each is scaled by its block's scale and added to the total,
// and the lanes are added at the end. Nothing in it depends on kRows, kTokens or where the row is
// read from, so an element has the same bits in any batch.
//
// w, scales [kRows]: row starts, and their block scales or null; x [kTokens]; y of token t, row r
// goes to out[t * out_stride + r].
template <class Row, int kRows, int kTokens>
HWY_INLINE void tile(const typename Row::Element* const* w, const float* const* scales,
                     int64_t fold, const float* const* x, int64_t cols, float* out,
                     int64_t out_stride) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V total[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) total[r][t] = hn::Zero(d);
  }
  for (int64_t begin = 0, block = 0; begin < cols; begin += fold, ++block) {
    const int64_t end = std::min(cols, begin + fold);
    V sum[kRows][kTokens];
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kTokens; ++t) sum[r][t] = hn::Zero(d);
    }
    int64_t k = begin;
    for (; k + lanes <= end; k += lanes) {
      V xv[kTokens];
      for (int t = 0; t < kTokens; ++t) xv[t] = hn::LoadU(d, x[t] + k);
      for (int r = 0; r < kRows; ++r) {
        const V wv = Row::load(w[r] + k);
        for (int t = 0; t < kTokens; ++t) sum[r][t] = hn::MulAdd(wv, xv[t], sum[r][t]);
      }
    }
    if (k < end) {
      const auto rest = static_cast<size_t>(end - k);
      for (int r = 0; r < kRows; ++r) {
        const V wv = Row::load_n(w[r] + k, rest);
        for (int t = 0; t < kTokens; ++t) {
          sum[r][t] = hn::MulAdd(wv, load_first(d, x[t] + k, rest), sum[r][t]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kTokens; ++t) {
        total[r][t] = scales == nullptr
                          ? hn::Add(total[r][t], sum[r][t])
                          : hn::MulAdd(sum[r][t], hn::Set(d, scales[r][block]), total[r][t]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      out[t * out_stride + r] = hn::GetLane(hn::SumOfLanes(d, total[r][t]));
    }
  }
}

// All tokens over four rows (or the one to three last ones), a few tokens at a time.
template <class Row, int kRows>
HWY_INLINE void all_tokens(const typename Row::Element* const* w, const float* const* scales,
                           int64_t fold, const float* const* x, int64_t num_tokens, int64_t cols,
                           float* out, int64_t out_stride) {
  int64_t t = 0;
  for (; t + 3 <= num_tokens; t += 3) {
    tile<Row, kRows, 3>(w, scales, fold, x + t, cols, out + t * out_stride, out_stride);
  }
  if (num_tokens - t == 2) {
    tile<Row, kRows, 2>(w, scales, fold, x + t, cols, out + t * out_stride, out_stride);
  } else if (num_tokens - t == 1) {
    tile<Row, kRows, 1>(w, scales, fold, x + t, cols, out + t * out_stride, out_stride);
  }
}

// Decodes columns of an NVFP4 row, group scales applied (exact), global scale not.
HWY_INLINE void decode_nvfp4_row(const WeightMatrix& w, int64_t row, float* out) {
  const auto* codes = static_cast<const uint8_t*>(w.data) + row * (w.cols / 2);
  const uint8_t* group_scale = w.group_scale + row * (w.cols / 16);
  const hn::FixedTag<uint8_t, 16> d8;
  const hn::FixedTag<int8_t, 16> di8;
  // Twice the value of each code, as signed bytes; the half is put into the scale.
  alignas(16) static constexpr int8_t kTwice[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                    0, -1, -2, -3, -4, -6, -8, -12};
  const auto table = hn::BitCast(d8, hn::Load(di8, kTwice));
  const auto low_mask = hn::Set(d8, uint8_t{15});
  alignas(16) int8_t values[16];
  const hn::Rebind<int8_t, D> narrow;
  const hn::RebindToSigned<D> wide;
  const D d;
  const size_t lanes = hn::Lanes(d);
  for (int64_t group = 0; group < w.cols / 16; ++group) {
    const auto bytes = load_first(d8, codes + group * 8, 8);
    const auto even = hn::TableLookupBytes(table, hn::And(bytes, low_mask));
    const auto odd = hn::TableLookupBytes(table, hn::And(hn::ShiftRight<4>(bytes), low_mask));
    hn::Store(hn::BitCast(di8, hn::InterleaveLower(even, odd)), di8, values);
    const V scale = hn::Set(d, 0.5f * from_e4m3(group_scale[group]));
    for (size_t i = 0; i < 16; i += lanes) {
      const auto integers = hn::PromoteTo(wide, hn::LoadU(narrow, values + i));
      hn::StoreU(hn::Mul(hn::ConvertTo(d, integers), scale), d,
                 out + group * 16 + static_cast<int64_t>(i));
    }
  }
}

template <class Row>
HWY_INLINE void decode_row(const typename Row::Element* row, int64_t cols, float* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
  int64_t k = 0;
  for (; k + lanes <= cols; k += lanes) hn::StoreU(Row::load(row + k), D(), out + k);
  if (k < cols)
    store_first(Row::load_n(row + k, static_cast<size_t>(cols - k)), out + k,
                static_cast<size_t>(cols - k));
}

// Rows [row_begin, row_end) of a plainly stored format. From kDecodeOnce tokens on, four rows are
// decoded to floats once and read from there by all tokens: the same values in the same order.
template <class Row>
HWY_INLINE void plain_rows(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                           const float* const* x, int64_t num_tokens, float* out,
                           int64_t out_stride, float* panel) {
  using Element = typename Row::Element;
  constexpr int64_t kDecodeOnce = 7;
  const bool has_scale = w.block_scale != nullptr;
  const int64_t fold = has_scale ? 128 : w.cols;
  const int64_t scales_a_row = has_scale ? (w.cols + 127) / 128 : 0;
  const auto* data = static_cast<const Element*>(w.data);
  for (int64_t row = row_begin; row < row_end; row += 4) {
    const int64_t count = std::min<int64_t>(4, row_end - row);
    const Element* rows[4];
    const float* decoded[4];
    const float* scale_rows[4];
    for (int64_t r = 0; r < count; ++r) {
      rows[r] = data + (row + r) * w.cols;
      scale_rows[r] = has_scale ? w.block_scale + (row + r) / 128 * scales_a_row : nullptr;
      decoded[r] = panel + r * w.cols;
    }
    const float* const* scales = has_scale ? scale_rows : nullptr;
    const bool decode_once = num_tokens >= kDecodeOnce && sizeof(Element) != sizeof(float);
    if (decode_once) {
      for (int64_t r = 0; r < count; ++r) decode_row<Row>(rows[r], w.cols, panel + r * w.cols);
    }
    float* y = out + (row - row_begin);
    const auto with_rows = [&]<int kRows>(std::integral_constant<int, kRows>) {
      if (decode_once) {
        all_tokens<F32Row, kRows>(decoded, scales, fold, x, num_tokens, w.cols, y, out_stride);
      } else {
        all_tokens<Row, kRows>(rows, scales, fold, x, num_tokens, w.cols, y, out_stride);
      }
    };
    if (count == 4) {
      with_rows(std::integral_constant<int, 4>());
    } else if (count == 3) {
      with_rows(std::integral_constant<int, 3>());
    } else if (count == 2) {
      with_rows(std::integral_constant<int, 2>());
    } else {
      with_rows(std::integral_constant<int, 1>());
    }
  }
}

HWY_INLINE void nvfp4_rows(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                           const float* const* x, int64_t num_tokens, float* out,
                           int64_t out_stride, float* panel) {
  for (int64_t row = row_begin; row < row_end; row += 4) {
    const int64_t count = std::min<int64_t>(4, row_end - row);
    for (int64_t r = 0; r < count; ++r) decode_nvfp4_row(w, row + r, panel + r * w.cols);
    const float* rows[4] = {panel, panel + w.cols, panel + 2 * w.cols, panel + 3 * w.cols};
    float* y = out + (row - row_begin);
    if (count == 4) {
      all_tokens<F32Row, 4>(rows, nullptr, w.cols, x, num_tokens, w.cols, y, out_stride);
    } else {
      for (int64_t r = 0; r < count; ++r) {
        all_tokens<F32Row, 1>(rows + r, nullptr, w.cols, x, num_tokens, w.cols, y + r, out_stride);
      }
    }
  }
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (int64_t r = 0; r < row_end - row_begin; ++r) out[t * out_stride + r] *= w.global_scale;
  }
}

// Floats of panel scratch rows_times_tokens needs.
inline size_t panel_floats(const WeightMatrix& w) { return 4 * static_cast<size_t>(w.cols); }

// out[t * out_stride + r] = sum_k x[t][k] w[row_begin + r, k] for rows [row_begin, row_end).
HWY_INLINE void rows_times_tokens(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                                  const float* const* x, int64_t num_tokens, float* out,
                                  int64_t out_stride, float* panel) {
  switch (w.format) {
    case WeightFormat::kF32:
      return plain_rows<F32Row>(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
    case WeightFormat::kBf16:
      return plain_rows<Bf16Row>(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
    case WeightFormat::kFp8Block128:
      return plain_rows<E4m3Row>(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
    case WeightFormat::kNvfp4:
      return nvfp4_rows(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
  }
  BRAID_UNREACHABLE(static_cast<int>(w.format));
}

// y[o] += sum_r s[r] b_t[r, o] for outputs [begin, end). Each output's sum runs over r in order.
HWY_INLINE void expand(const float* s, const Bf16* b_t, int64_t rank, int64_t out_size,
                       int64_t begin, int64_t end, float* y) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t o = begin;
  for (; o + lanes <= end; o += lanes) {
    V sum = hn::Zero(d);
    for (int64_t r = 0; r < rank; ++r)
      sum = hn::MulAdd(Bf16Row::load(b_t + r * out_size + o), hn::Set(d, s[r]), sum);
    hn::StoreU(hn::Add(hn::LoadU(d, y + (o - begin)), sum), d, y + (o - begin));
  }
  if (o < end) {
    const auto rest = static_cast<size_t>(end - o);
    V sum = hn::Zero(d);
    for (int64_t r = 0; r < rank; ++r) {
      sum = hn::MulAdd(Bf16Row::load_n(b_t + r * out_size + o, rest), hn::Set(d, s[r]), sum);
    }
    store_first(hn::Add(load_first(d, y + (o - begin), rest), sum), y + (o - begin), rest);
  }
}

}  // namespace braid::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

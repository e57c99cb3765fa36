#include "cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/gemm.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "cpu/gemm.h"
#include "cpu/vec-inl.h"
#include "quant/e4m3.h"

HWY_BEFORE_NAMESPACE();
namespace braid::cpu::HWY_NAMESPACE {

using FourLanes = hn::FixedTag<float, 4>;

// The sum of a vector's 128-bit blocks.
template <class DV>
HWY_INLINE hn::Vec<FourLanes> sum_of_blocks(DV /*d*/, hn::Vec<DV> v) {
  if constexpr (hn::MaxLanes(DV()) <= 4) {
    return v;
  } else {
    const hn::Half<DV> half;
    return sum_of_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// The sums of the lanes of four vectors, with a third of the shuffles of four separate sums. Each
// is added in the same order whichever of the four it is.
HWY_INLINE hn::Vec<FourLanes> sums_of_lanes(V a, V b, V c, V e) {
  static_assert(kTileRows == 4);
  const D d;
  const hn::Repartition<double, D> pairs;
  const auto ab =
      hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce =
      hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  return sum_of_blocks(d, hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, ab, ce)),
                                  hn::BitCast(d, hn::InterleaveUpper(pairs, ab, ce))));
}

// Where a tile's rows lie and how they are scaled.
template <class Row>
struct RowBlock {
  const typename Row::Element* data = nullptr;  // the first row; the others follow at row_stride
  int64_t row_stride = 0;                       // elements
  const float* scales = nullptr;  // one for each kBlockCols columns, for all rows; or null
};

// Rows read side by side are no stream to the hardware, so the tile after the next is fetched into
// the second-level cache while this one is multiplied, in the order of its addresses: twice as fast
// as fetching it in the order of its use. Past the matrix this is a harmless hint.
constexpr int64_t kTilesAhead = 2;

// kRows rows times kTokens tokens. An element's sum runs over its columns in order, one partial sum
// a lane, each weight decoded and scaled before its product; the lanes are added at the end.
// Nothing in it depends on kRows, kTokens or where the row is read from, so an element has the same
// bits in any batch.
//
// x [kTokens]; y of token t, row r goes to out[t * out_stride + r].
template <class Row, int kRows, int kTokens>
HWY_NOINLINE void tile(const RowBlock<Row>& w, const float* const* x, int64_t cols, float* out,
                       int64_t out_stride) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V sum[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sum[r][t] = hn::Zero(d);
  }
  const bool has_scale = w.scales != nullptr;
  const auto* ahead = w.data + kTilesAhead * kRows * w.row_stride;
  for (int64_t begin = 0, block = 0; begin < cols; begin += kBlockCols, ++block) {
    const int64_t end = std::min(cols, begin + kBlockCols);
    if constexpr (!std::is_same_v<Row, F32Row>) {
      prefetch(ahead, kRows * kBlockCols * sizeof(typename Row::Element));
      ahead += kRows * kBlockCols;
    }
    const V scale = hn::Set(d, has_scale ? w.scales[block] : 1.0f);
    const auto scaled = [&](V v) {
      if constexpr (std::is_same_v<Row, E4m3Row>) return hn::Mul(v, scale);
      return v;
    };
    int64_t k = begin;
    for (; k + lanes <= end; k += lanes) {
      V xv[kTokens];
      for (int t = 0; t < kTokens; ++t) xv[t] = hn::LoadU(d, x[t] + k);
      for (int r = 0; r < kRows; ++r) {
        const V wv = scaled(Row::load(w.data + r * w.row_stride + k));
        for (int t = 0; t < kTokens; ++t) sum[r][t] = hn::MulAdd(wv, xv[t], sum[r][t]);
      }
    }
    if (k < end) {
      const auto rest = static_cast<size_t>(end - k);
      for (int r = 0; r < kRows; ++r) {
        const V wv = scaled(Row::load_n(w.data + r * w.row_stride + k, rest));
        for (int t = 0; t < kTokens; ++t) {
          sum[r][t] = hn::MulAdd(wv, load_first(d, x[t] + k, rest), sum[r][t]);
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    float* y = out + t * out_stride;
    if constexpr (kRows == kTileRows) {
      hn::StoreU(sums_of_lanes(sum[0][t], sum[1][t], sum[2][t], sum[3][t]), FourLanes(), y);
    } else {
      for (int r = 0; r < kRows; ++r) {
        const V s = sum[r][t];
        y[r] = hn::GetLane(sums_of_lanes(s, s, s, s));
      }
    }
  }
}

// All tokens over kRows rows. Three at a time, and the last four as two and two: a tile of one
// token waits for its own sums.
template <class Row, int kRows>
HWY_INLINE void all_tokens(const RowBlock<Row>& w, const float* const* x, int64_t num_tokens,
                           int64_t cols, float* out, int64_t out_stride) {
  int64_t t = 0;
  for (; num_tokens - t >= 3 && num_tokens - t != 4; t += 3) {
    tile<Row, kRows, 3>(w, x + t, cols, out + t * out_stride, out_stride);
  }
  for (; num_tokens - t >= 2; t += 2) {
    tile<Row, kRows, 2>(w, x + t, cols, out + t * out_stride, out_stride);
  }
  if (t < num_tokens) tile<Row, kRows, 1>(w, x + t, cols, out + t * out_stride, out_stride);
}

template <class Row>
HWY_INLINE void all_tokens(const RowBlock<Row>& w, int64_t num_rows, const float* const* x,
                           int64_t num_tokens, int64_t cols, float* out, int64_t out_stride) {
  if (num_rows == kTileRows) {
    all_tokens<Row, kTileRows>(w, x, num_tokens, cols, out, out_stride);
    return;
  }
  for (int64_t r = 0; r < num_rows; ++r) {
    all_tokens<Row, 1>({w.data + r * w.row_stride, w.row_stride, w.scales}, x, num_tokens, cols,
                       out + r, out_stride);
  }
}

// Decodes a row of NVFP4 with its group scales (exact), its global scale not.
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
  const hn::Rebind<int8_t, D> narrow;
  const hn::RebindToSigned<D> wide;
  const D d;
  const size_t lanes = hn::Lanes(d);
  for (int64_t group = 0; group < w.cols / 16; ++group) {
    uint64_t eight;
    std::memcpy(&eight, codes + group * 8, sizeof eight);
    const auto bytes = hn::BitCast(d8, hn::Set(hn::FixedTag<uint64_t, 2>(), eight));
    const auto even = hn::TableLookupBytes(table, hn::And(bytes, low_mask));
    const auto odd = hn::TableLookupBytes(table, hn::And(hn::ShiftRight<4>(bytes), low_mask));
    alignas(16) int8_t values[16];
    hn::Store(hn::BitCast(di8, hn::InterleaveLower(even, odd)), di8, values);
    const V scale = hn::Set(d, 0.5f * from_e4m3(group_scale[group]));
    for (size_t i = 0; i < 16; i += lanes) {
      const auto integers = hn::PromoteTo(wide, hn::LoadU(narrow, values + i));
      hn::StoreU(hn::Mul(hn::ConvertTo(d, integers), scale), d,
                 out + group * 16 + static_cast<int64_t>(i));
    }
  }
}

// Decodes a row, scaled, to what tile() multiplies by.
template <class Row>
HWY_INLINE void decode_row(const typename Row::Element* row, const float* scales, int64_t cols,
                           float* out) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t begin = 0, block = 0; begin < cols; begin += kBlockCols, ++block) {
    const int64_t end = std::min(cols, begin + kBlockCols);
    const V scale = hn::Set(d, scales != nullptr ? scales[block] : 1.0f);
    const auto scaled = [&](V v) {
      if constexpr (std::is_same_v<Row, E4m3Row>) return hn::Mul(v, scale);
      return v;
    };
    int64_t k = begin;
    for (; k + lanes <= end; k += lanes) hn::StoreU(scaled(Row::load(row + k)), d, out + k);
    if (k < end) {
      const auto rest = static_cast<size_t>(end - k);
      store_first(scaled(Row::load_n(row + k, rest)), out + k, rest);
    }
  }
}

// Rows [row_begin, row_end) of a plainly stored format. From kDecodeOnce tokens on, a tile's rows
// are decoded to floats once and read from there by all tokens: the same values in the same order.
template <class Row>
HWY_INLINE void plain_rows(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                           const float* const* x, int64_t num_tokens, float* out,
                           int64_t out_stride, float* panel) {
  constexpr int64_t kDecodeOnce = std::is_same_v<Row, F32Row> ? INT64_MAX : 4;
  const auto* data = static_cast<const typename Row::Element*>(w.data);
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    const int64_t count = std::min(kTileRows, row_end - row);
    const RowBlock<Row> rows = {data + row * w.cols, w.cols, nullptr};
    float* y = out + (row - row_begin);
    if (num_tokens < kDecodeOnce) {
      all_tokens(rows, count, x, num_tokens, w.cols, y, out_stride);
      continue;
    }
    for (int64_t r = 0; r < count; ++r) {
      decode_row<Row>(rows.data + r * w.cols, nullptr, w.cols, panel + r * w.cols);
    }
    all_tokens(RowBlock<F32Row>{panel, w.cols, nullptr}, count, x, num_tokens, w.cols, y,
               out_stride);
  }
}

// The same for FP8. A tile ends at a border of scale blocks, so that its rows share their scales.
HWY_INLINE void fp8_rows(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                         const float* const* x, int64_t num_tokens, float* out, int64_t out_stride,
                         float* panel) {
  constexpr int64_t kDecodeOnce = 4;
  const auto* data = static_cast<const uint8_t*>(w.data);
  const int64_t num_blocks = (w.cols + kBlockCols - 1) / kBlockCols;
  float* scales = panel + kTileRows * w.cols;
  int64_t scale_row = -1;
  bool in_range = true;
  for (int64_t row = row_begin, count; row < row_end; row += count) {
    count = std::min({kTileRows, row_end - row, 128 - row % 128});
    if (row / 128 != scale_row) {
      scale_row = row / 128;
      in_range = true;
      for (int64_t b = 0; b < num_blocks; ++b) {
        scales[b] = w.block_scale[scale_row * num_blocks + b] * 0x1p120f;
        in_range = in_range && std::isfinite(scales[b]);
      }
    }
    const RowBlock<E4m3Row> rows = {data + row * w.cols, w.cols, scales};
    float* y = out + (row - row_begin);
    if (in_range && num_tokens < kDecodeOnce) {
      all_tokens(rows, count, x, num_tokens, w.cols, y, out_stride);
      continue;
    }
    for (int64_t r = 0; r < count; ++r) {
      if (in_range) {
        decode_row<E4m3Row>(rows.data + r * w.cols, scales, w.cols, panel + r * w.cols);
      } else {
        // A scale of 256 or more: no sane matrix has one, but it is a legal number.
        dequantize_row(w, static_cast<int32_t>(row + r), panel + r * w.cols);
      }
    }
    all_tokens(RowBlock<F32Row>{panel, w.cols, nullptr}, count, x, num_tokens, w.cols, y,
               out_stride);
  }
}

HWY_INLINE void nvfp4_rows(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                           const float* const* x, int64_t num_tokens, float* out,
                           int64_t out_stride, float* panel) {
  for (int64_t row = row_begin; row < row_end; row += kTileRows) {
    const int64_t count = std::min(kTileRows, row_end - row);
    for (int64_t r = 0; r < count; ++r) decode_nvfp4_row(w, row + r, panel + r * w.cols);
    all_tokens(RowBlock<F32Row>{panel, w.cols, nullptr}, count, x, num_tokens, w.cols,
               out + (row - row_begin), out_stride);
  }
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (int64_t r = 0; r < row_end - row_begin; ++r) out[t * out_stride + r] *= w.global_scale;
  }
}

void rows_times_tokens_impl(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                            const float* const* x, int64_t num_tokens, float* out,
                            int64_t out_stride, float* panel) {
  switch (w.format) {
    case WeightFormat::kF32:
      return plain_rows<F32Row>(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
    case WeightFormat::kBf16:
      return plain_rows<Bf16Row>(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
    case WeightFormat::kFp8Block128:
      return fp8_rows(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
    case WeightFormat::kNvfp4:
      return nvfp4_rows(w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
  }
  BRAID_UNREACHABLE(static_cast<int>(w.format));
}

void expand_impl(const float* s, const Bf16* b_t, int64_t rank, int64_t out_size, int64_t begin,
                 int64_t end, float* y) {
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

#if HWY_ONCE
namespace braid::cpu {

HWY_EXPORT(rows_times_tokens_impl);
HWY_EXPORT(expand_impl);

void rows_times_tokens(const WeightMatrix& w, int64_t row_begin, int64_t row_end,
                       const float* const* x, int64_t num_tokens, float* out, int64_t out_stride,
                       float* panel) {
  HWY_DYNAMIC_DISPATCH(rows_times_tokens_impl)
  (w, row_begin, row_end, x, num_tokens, out, out_stride, panel);
}

void prefetch_rows(const Bf16* rows, int64_t num_rows, int64_t cols) {
  const int64_t elements = std::min<int64_t>(num_rows, 2 * kTileRows) * cols;
  prefetch(rows, static_cast<size_t>(elements) * sizeof(Bf16));
}

void prefetch_expand(const Bf16* b_t, int64_t rank, int64_t out_size, int64_t begin, int64_t end) {
  for (int64_t r = 0; r < rank; ++r)
    prefetch(b_t + r * out_size + begin, static_cast<size_t>(end - begin) * sizeof(Bf16));
}

void expand(const float* s, const Bf16* b_t, int64_t rank, int64_t out_size, int64_t begin,
            int64_t end, float* y) {
  HWY_DYNAMIC_DISPATCH(expand_impl)(s, b_t, rank, out_size, begin, end, y);
}

}  // namespace braid::cpu
#endif

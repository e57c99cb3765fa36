#include "checkpoint/stored_matrix.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "checkpoint/aligned_buffer.h"

namespace braid {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Builds one Weight; each step checks a tensor and puts it in place.
class Reader {
 public:
  Reader(const StoredMatrix& stored, int32_t rows, int32_t cols, std::shared_ptr<const void> owner)
      : stored_(stored), owner_(std::move(owner)) {
    weight_.matrix.rows = rows;
    weight_.matrix.cols = cols;
  }

  Result<Weight> read() {
    if (stored_.weight && stored_.weight_packed) {
      return fail(ErrorCode::kCorrupt, "tensors {} and {}: a matrix has one of the two",
                  name_of(".weight"), name_of(".weight_packed"));
    }
    if (stored_.weight_packed) return read_compressed_tensors();
    if (!stored_.weight) {
      return fail(ErrorCode::kNotFound, "no tensor {}", name_of(".weight"));
    }
    switch (stored_.weight->dtype) {
      case Dtype::kBf16:
      case Dtype::kF32:
      case Dtype::kF16:
        return read_plain();
      case Dtype::kF8E4M3:
        return read_fp8();
      case Dtype::kU8:
        return read_modelopt();
      default:
        return fail(ErrorCode::kUnsupported,
                    "tensor {}: dtype {} of a weight is not known to this build, it knows BF16, "
                    "F16, F32, F8_E4M3 and U8 (NVFP4)",
                    name_of(".weight"), name(stored_.weight->dtype));
    }
  }

 private:
  using Part = std::optional<TensorView> StoredMatrix::*;
  struct NamedPart {
    Part part;
    const char* suffix;
  };
  static constexpr NamedPart kScales[] = {
      {&StoredMatrix::weight_scale_inv, ".weight_scale_inv"},
      {&StoredMatrix::weight_scale, ".weight_scale"},
      {&StoredMatrix::weight_scale_2, ".weight_scale_2"},
      {&StoredMatrix::input_scale, ".input_scale"},
      {&StoredMatrix::weight_global_scale, ".weight_global_scale"},
      {&StoredMatrix::input_global_scale, ".input_global_scale"}};

  std::string name_of(const char* suffix) const { return "\"" + stored_.module + suffix + "\""; }

  // No scale tensor but these may be there: one that is not applied would be dropped in silence.
  Status allow_only(std::initializer_list<Part> allowed, const char* storage) const {
    for (const NamedPart& scale : kScales) {
      bool known = false;
      for (const Part part : allowed) known = known || part == scale.part;
      if (!known && stored_.*scale.part) {
        return fail(ErrorCode::kCorrupt, "tensor {}: {} weight has no such scale",
                    name_of(scale.suffix), storage);
      }
    }
    return {};
  }

  Status expect(const TensorView& view, const char* suffix, Dtype dtype, const Shape& shape) const {
    if (view.dtype != dtype) {
      return fail(ErrorCode::kCorrupt, "tensor {}: dtype {}, {} is expected", name_of(suffix),
                  name(view.dtype), name(dtype));
    }
    if (view.shape != shape) {
      return fail(ErrorCode::kCorrupt, "tensor {}: shape {}, {} is expected", name_of(suffix),
                  to_string(view.shape), to_string(shape));
    }
    return {};
  }

  Shape shape_of_blocks(int64_t block_rows, int64_t block_cols) const {
    return {ceil_div(weight_.matrix.rows, block_rows), ceil_div(weight_.matrix.cols, block_cols)};
  }

  // The view's bytes where they are, or a copy of them when an element would be misaligned.
  const void* in_place(const TensorView& view) {
    if (is_aligned(view.bytes.data(), size_of(view.dtype))) return view.bytes.data();
    auto copy = make_aligned_buffer(view.bytes.size());
    std::memcpy(copy.get(), view.bytes.data(), view.bytes.size());
    return keep(std::move(copy));
  }

  const void* keep(std::shared_ptr<std::byte> buffer) {
    weight_.owners.push_back(buffer);
    return buffer.get();
  }

  const float* widened(const TensorView& view) {
    auto floats = make_aligned_buffer(view.bytes.size() / size_of(view.dtype) * sizeof(float));
    copy_to_float(view, reinterpret_cast<float*>(floats.get()));
    return static_cast<const float*>(keep(std::move(floats)));
  }

  Weight finish() {
    weight_.owners.push_back(owner_);
    return std::move(weight_);
  }

  Result<Weight> read_plain() {
    const TensorView& view = *stored_.weight;
    if (auto ok = allow_only({}, "an unquantised"); !ok) return pass_on(ok);
    if (auto ok = expect(view, ".weight", view.dtype, shape_of_blocks(1, 1)); !ok) {
      return pass_on(ok);
    }
    weight_.matrix.format = view.dtype == Dtype::kBf16 ? WeightFormat::kBf16 : WeightFormat::kF32;
    weight_.matrix.data = view.dtype == Dtype::kF16 ? widened(view) : in_place(view);
    return finish();
  }

  Result<Weight> read_fp8() {
    if (!stored_.weight_scale_inv && stored_.weight_scale) {
      return fail(ErrorCode::kUnsupported,
                  "tensor {}: FP8 scales of this kind are not known to this build, it knows "
                  "weight_scale_inv of 128x128 blocks",
                  name_of(".weight_scale"));
    }
    if (!stored_.weight_scale_inv) {
      return fail(ErrorCode::kCorrupt, "tensor {} is F8_E4M3, but there is no {}",
                  name_of(".weight"), name_of(".weight_scale_inv"));
    }
    if (auto ok = allow_only({&StoredMatrix::weight_scale_inv}, "an FP8"); !ok) return pass_on(ok);
    if (auto ok = expect(*stored_.weight, ".weight", Dtype::kF8E4M3, shape_of_blocks(1, 1)); !ok) {
      return pass_on(ok);
    }
    const TensorView& scales = *stored_.weight_scale_inv;
    const Dtype dtype = scales.dtype == Dtype::kBf16 ? Dtype::kBf16 : Dtype::kF32;
    if (auto ok = expect(scales, ".weight_scale_inv", dtype, shape_of_blocks(128, 128)); !ok) {
      return pass_on(ok);
    }
    const float* values =
        dtype == Dtype::kF32 ? static_cast<const float*>(in_place(scales)) : widened(scales);
    const int64_t block_cols = scales.shape[1];
    for (int64_t i = 0; i < num_elements(scales.shape); ++i) {
      if (!(values[i] > 0) || !std::isfinite(values[i])) {
        return fail(ErrorCode::kCorrupt,
                    "tensor {}: scale [{}, {}] is {}, a positive number is expected",
                    name_of(".weight_scale_inv"), i / block_cols, i % block_cols, values[i]);
      }
    }
    weight_.matrix.format = WeightFormat::kFp8Block128;
    weight_.matrix.data = stored_.weight->bytes.data();
    weight_.matrix.block_scale = values;
    return finish();
  }

  // What the two NVFP4 spellings share: packed pairs, and one e4m3 scale for 16 columns.
  Status read_nvfp4(const TensorView& packed, const char* suffix) {
    if (weight_.matrix.cols % 16 != 0) {
      return fail(ErrorCode::kCorrupt,
                  "tensor {}: NVFP4 with {} columns, a multiple of 16 is expected", name_of(suffix),
                  weight_.matrix.cols);
    }
    if (auto ok = expect(packed, suffix, Dtype::kU8, shape_of_blocks(1, 2)); !ok) return ok;
    if (!stored_.weight_scale) {
      return fail(ErrorCode::kCorrupt, "tensor {} is NVFP4, but there is no {}", name_of(suffix),
                  name_of(".weight_scale"));
    }
    const TensorView& scales = *stored_.weight_scale;
    if (auto ok = expect(scales, ".weight_scale", Dtype::kF8E4M3, shape_of_blocks(1, 16)); !ok) {
      return ok;
    }
    // Zero is a scale: groups far below the largest element underflow to it.
    const auto* codes = reinterpret_cast<const uint8_t*>(scales.bytes.data());
    for (int64_t i = 0; i < num_elements(scales.shape); ++i) {
      if (codes[i] >= 0x7f) {
        return fail(
            ErrorCode::kCorrupt,
            "tensor {}: scale [{}, {}] is NaN or negative, e4m3 codes 0x00 to 0x7e are expected",
            name_of(".weight_scale"), i / scales.shape[1], i % scales.shape[1]);
      }
    }
    weight_.matrix.format = WeightFormat::kNvfp4;
    weight_.matrix.data = packed.bytes.data();
    weight_.matrix.group_scale = codes;
    return {};
  }

  // A positive F32 scalar, of shape [] or [1].
  Result<float> scalar(const TensorView& view, const char* suffix) const {
    if (view.dtype != Dtype::kF32 || view.bytes.size() != sizeof(float)) {
      return fail(ErrorCode::kCorrupt, "tensor {}: {} of shape {}, one F32 value is expected",
                  name_of(suffix), name(view.dtype), to_string(view.shape));
    }
    float value = 0;
    copy_to_float(view, &value);
    if (!(value > 0) || !std::isfinite(value)) {
      return fail(ErrorCode::kCorrupt, "tensor {}: scale is {}, a positive number is expected",
                  name_of(suffix), value);
    }
    return value;
  }

  // The second-level scale; the activation's scale beside it is checked and not used.
  Result<float> matrix_scale(Part part, const char* suffix, Part input, const char* input_suffix) {
    if (!(stored_.*part)) {
      return fail(ErrorCode::kCorrupt, "\"{}\" is NVFP4, but there is no tensor {}", stored_.module,
                  name_of(suffix));
    }
    if (stored_.*input) {
      if (auto value = scalar(*(stored_.*input), input_suffix); !value) return value;
    }
    return scalar(*(stored_.*part), suffix);
  }

  Result<Weight> read_modelopt() {
    if (auto ok = allow_only({&StoredMatrix::weight_scale, &StoredMatrix::weight_scale_2,
                              &StoredMatrix::input_scale},
                             "a ModelOpt NVFP4");
        !ok) {
      return pass_on(ok);
    }
    if (auto ok = read_nvfp4(*stored_.weight, ".weight"); !ok) return pass_on(ok);
    auto scale = matrix_scale(&StoredMatrix::weight_scale_2, ".weight_scale_2",
                              &StoredMatrix::input_scale, ".input_scale");
    if (!scale) return pass_on(scale);
    weight_.matrix.global_scale = *scale;
    return finish();
  }

  Result<Weight> read_compressed_tensors() {
    if (auto ok = allow_only({&StoredMatrix::weight_scale, &StoredMatrix::weight_global_scale,
                              &StoredMatrix::input_global_scale},
                             "a compressed-tensors NVFP4");
        !ok) {
      return pass_on(ok);
    }
    if (auto ok = read_nvfp4(*stored_.weight_packed, ".weight_packed"); !ok) return pass_on(ok);
    auto reciprocal = matrix_scale(&StoredMatrix::weight_global_scale, ".weight_global_scale",
                                   &StoredMatrix::input_global_scale, ".input_global_scale");
    if (!reciprocal) return pass_on(reciprocal);
    weight_.matrix.global_scale = 1.0f / *reciprocal;
    if (!std::isfinite(weight_.matrix.global_scale) || weight_.matrix.global_scale == 0) {
      return fail(ErrorCode::kCorrupt, "tensor {}: scale is {}, its reciprocal is no number",
                  name_of(".weight_global_scale"), *reciprocal);
    }
    return finish();
  }

  const StoredMatrix& stored_;
  std::shared_ptr<const void> owner_;
  Weight weight_;
};

}  // namespace

Result<Weight> read_stored_matrix(const StoredMatrix& stored, int32_t rows, int32_t cols,
                                  std::shared_ptr<const void> owner) {
  return Reader(stored, rows, cols, std::move(owner)).read();
}

}  // namespace braid

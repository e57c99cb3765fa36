#include "gpu/gpu_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <tuple>

#include "adapter/adapter_image.h"
#include "base/check.h"
#include "kernels/attention/attention_bf16.h"
#include "kernels/linear/linear_bf16.h"
#include "kernels/linear/pack.h"
#include "kernels/moe_gemm/dummy.h"
#include "kernels/moe_gemm/pack.h"

namespace braid {
namespace {

constexpr int32_t padded(int32_t size) { return (size + 127) / 128 * 128; }

std::vector<Bf16> rounded(const std::vector<float>& values, int32_t size) {
  std::vector<Bf16> rounded(static_cast<size_t>(size));
  std::transform(values.begin(), values.end(), rounded.begin(), to_bf16);
  return rounded;
}

// A matrix in BF16 with rows of `cols` columns, at least its own.
std::vector<Bf16> rounded(const WeightMatrix& w, int32_t cols) {
  std::vector<Bf16> rounded(static_cast<size_t>(w.rows) * static_cast<size_t>(cols));
  std::vector<float> row(static_cast<size_t>(w.cols));
  for (int32_t r = 0; r < w.rows; ++r) {
    dequantize_row(w, r, row.data());
    std::transform(row.begin(), row.end(), rounded.begin() + int64_t{r} * cols, to_bf16);
  }
  return rounded;
}

// `rows` rows of `row_bytes` with zeros up to [to_rows, to_row_bytes].
std::vector<uint8_t> with_zeros(const void* data, int32_t rows, int32_t row_bytes, int32_t to_rows,
                                int32_t to_row_bytes) {
  std::vector<uint8_t> out(static_cast<size_t>(to_rows) * static_cast<size_t>(to_row_bytes));
  const auto* from = static_cast<const uint8_t*>(data);
  for (int32_t r = 0; r < rows; ++r)
    std::copy_n(from + int64_t{r} * row_bytes, row_bytes, out.begin() + int64_t{r} * to_row_bytes);
  return out;
}

// An expert's matrix with zeros up to [rows, cols], F32 rounded to BF16. FP8's blocks of scales are
// the same: edge blocks are filled up.
class PaddedMatrix {
 public:
  PaddedMatrix(const WeightMatrix& w, int32_t rows, int32_t cols) : matrix_(w) {
    matrix_.rows = rows;
    matrix_.cols = cols;
    if (w.format == WeightFormat::kF32) {
      bf16_ = rounded(w, cols);
      bf16_.resize(static_cast<size_t>(rows) * static_cast<size_t>(cols));
      matrix_.format = WeightFormat::kBf16;
      matrix_.data = bf16_.data();
    }
    if (w.format == WeightFormat::kF32 || (w.rows == rows && w.cols == cols)) return;
    const auto bytes_of = [&](int32_t n) {
      return w.format == WeightFormat::kBf16 ? 2 * n : w.format == WeightFormat::kNvfp4 ? n / 2 : n;
    };
    codes_ = with_zeros(w.data, w.rows, bytes_of(w.cols), rows, bytes_of(cols));
    matrix_.data = codes_.data();
    if (w.format != WeightFormat::kNvfp4) return;
    scales_ = with_zeros(w.group_scale, w.rows, w.cols / 16, rows, cols / 16);
    matrix_.group_scale = scales_.data();
  }

  const WeightMatrix& matrix() const { return matrix_; }

 private:
  WeightMatrix matrix_;
  std::vector<uint8_t> codes_, scales_;
  std::vector<Bf16> bf16_;
};

// What the device has of an expert that the checkpoint has in this format.
constexpr WeightFormat format_on_device(WeightFormat format) {
  return format == WeightFormat::kF32 ? WeightFormat::kBf16 : format;
}

class Loader {
 public:
  Loader(const ModelConfig& config, WeightSource& source, const GpuLoadOptions& options,
         const std::function<void(int64_t, int64_t)>& progress)
      : config_(config),
        source_(source),
        options_(options),
        progress_(progress),
        table_(weight_table(config)) {
    for (const WeightSpec& spec : table_) specs_[{spec.role, spec.layer, spec.expert}] = &spec;
    weights_.moe = gpu_moe_sizes(config);
  }

  Result<GpuWeights> load() {
    const int32_t hidden = weights_.moe.hidden_size;
    Weight embedding;
    if (auto s = read(WeightRole::kEmbedding, embedding); !s) return pass_on(s);
    if (embedding.matrix.format == WeightFormat::kFp8Block128 ||
        embedding.matrix.format == WeightFormat::kNvfp4)
      return refuse(spec(WeightRole::kEmbedding), embedding.matrix.format);
    weights_.embedding = DeviceBuffer::of(rounded(embedding.matrix, hidden));
    weights_.bytes.embedding_row = static_cast<size_t>(config_.hidden_size) * sizeof(Bf16);
    if (auto s = lm_head(embedding); !s) return pass_on(s);
    if (auto s = norm(WeightRole::kFinalNorm, -1, hidden, weights_.final_norm); !s)
      return pass_on(s);
    for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      weights_.layers.emplace_back();
      if (auto s = load_layer(layer, weights_.layers.back()); !s) return pass_on(s);
    }
    if (progress_) progress_(done_, static_cast<int64_t>(table_.size()));
    return std::move(weights_);
  }

 private:
  using Roles = std::vector<WeightRole>;

  // Rows up to a multiple of 8 are zeros: their logits are not looked at.
  Status lm_head(const Weight& embedding) {
    Weight head = embedding;
    if (!config_.tie_word_embeddings) {
      if (auto s = read(WeightRole::kLmHead, head); !s) return s;
    }
    std::vector<Bf16> padded_rows;
    if (head.matrix.rows % 8 != 0 && head.matrix.format != WeightFormat::kFp8Block128) {
      const int32_t cols = head.matrix.cols, rows = (head.matrix.rows + 7) / 8 * 8;
      padded_rows = rounded(head.matrix, cols);
      padded_rows.resize(static_cast<size_t>(rows) * static_cast<size_t>(cols));
      head.matrix = {
          .format = WeightFormat::kBf16, .rows = rows, .cols = cols, .data = padded_rows.data()};
    }
    return pack(spec(config_.tie_word_embeddings ? WeightRole::kEmbedding : WeightRole::kLmHead),
                {&head, 1}, weights_.lm_head);
  }

  Status load_layer(int32_t layer, GpuLayer& to) {
    const int32_t hidden = weights_.moe.hidden_size;
    if (auto s = norm(WeightRole::kInputNorm, layer, hidden, to.input_norm); !s) return s;
    if (auto s = norm(WeightRole::kPostAttentionNorm, layer, hidden, to.post_attention_norm); !s)
      return s;
    if (config_.qk_norm) {
      if (auto s = norm(WeightRole::kQNorm, layer, config_.head_dim, to.q_norm); !s) return s;
      if (auto s = norm(WeightRole::kKNorm, layer, config_.head_dim, to.k_norm); !s) return s;
    }
    if (auto s = linear({WeightRole::kQProj, WeightRole::kKProj, WeightRole::kVProj}, layer,
                        to.qkv_proj);
        !s)
      return s;
    if (auto s = linear({WeightRole::kOProj}, layer, to.o_proj); !s) return s;
    if (!config_.is_moe_layer[static_cast<size_t>(layer)]) {
      if (auto s = linear({WeightRole::kGateProj, WeightRole::kUpProj}, layer, to.gate_up_proj); !s)
        return s;
      return linear({WeightRole::kDownProj}, layer, to.down_proj);
    }
    if (auto s = linear({WeightRole::kRouter}, layer, to.router); !s) return s;
    return options_.random_experts ? make_experts(layer, to) : experts(layer, to);
  }

  const WeightSpec& spec(WeightRole role, int32_t layer = -1, int32_t expert = -1) const {
    return *specs_.at({role, layer, expert});
  }

  void count_one() {
    if (progress_) progress_(done_, static_cast<int64_t>(table_.size()));
    ++done_;
  }

  Status read(WeightRole role, Weight& to, int32_t layer = -1, int32_t expert = -1) {
    count_one();
    auto matrix = source_.matrix(spec(role, layer, expert));
    if (!matrix) return pass_on(matrix);
    to = std::move(*matrix);
    return {};
  }

  Status norm(WeightRole role, int32_t layer, int32_t size, DeviceBuffer& to) {
    count_one();
    auto values = source_.vector(spec(role, layer));
    if (!values) return pass_on(values);
    to = DeviceBuffer::of(rounded(*values, size));
    weights_.bytes.always += values->size() * sizeof(Bf16);
    return {};
  }

  static tl::unexpected<Error> refuse(const WeightSpec& spec, WeightFormat format) {
    return fail(ErrorCode::kUnsupported, "{}.weight is {}, on a GPU {}; `--device cpu` runs it",
                spec.module, name(format),
                spec.expert >= 0 ? "all experts are what config.json says they are quantised to"
                                 : "it is bf16 or f32, or all projections that read the same are "
                                   "fp8_block128");
  }

  // One or several matrices of a layer that read the same x, one above the other.
  Status linear(const Roles& roles, int32_t layer, GpuLinear& to) {
    std::vector<Weight> slices(roles.size());
    for (size_t i = 0; i < roles.size(); ++i) {
      if (auto s = read(roles[i], slices[i], layer); !s) return s;
    }
    return pack(spec(roles.front(), layer), slices, to);
  }

  Status pack(const WeightSpec& first, std::span<const Weight> slices, GpuLinear& to) {
    const bool is_fp8 = slices.front().matrix.format == WeightFormat::kFp8Block128;
    to.shape = {.format = is_fp8 ? WeightFormat::kFp8Block128 : WeightFormat::kBf16,
                .in = slices.front().matrix.cols,
                .num_slices = static_cast<int32_t>(slices.size())};
    std::vector<WeightMatrix> matrices;
    std::vector<std::vector<Bf16>> converted;  // what matrices point into
    for (const Weight& slice : slices) {
      WeightMatrix matrix = slice.matrix;
      if ((matrix.format == WeightFormat::kFp8Block128) != is_fp8)
        return refuse(first, matrix.format);
      if (matrix.format == WeightFormat::kF32 || matrix.format == WeightFormat::kNvfp4) {
        converted.push_back(rounded(matrix, matrix.cols));
        matrix.format = WeightFormat::kBf16;
        matrix.data = converted.back().data();
      }
      to.shape.slice_out[matrices.size()] = matrix.rows;
      weights_.bytes.always += weight_bytes(matrix);
      matrices.push_back(matrix);
    }
    if (auto why = kernels::why_unsupported(to.shape); !why.empty())
      return fail(ErrorCode::kUnsupported, "{}: {} (on a GPU)", first.module, why);
    std::vector<uint8_t> packed(static_cast<size_t>(kernels::linear_weight_bytes(to.shape)));
    kernels::pack_linear(to.shape, matrices, packed.data());
    to.weights = DeviceBuffer::of(packed);
    return {};
  }

  void reserve_experts(GpuLayer& to) {
    const kernels::MoeSizes& sizes = weights_.moe;
    const auto count = static_cast<size_t>(sizes.num_experts);
    to.gate_up = DeviceBuffer(count * static_cast<size_t>(kernels::expert_gate_up_bytes(sizes)));
    to.down = DeviceBuffer(count * static_cast<size_t>(kernels::expert_down_bytes(sizes)));
    weights_.bytes.experts +=
        count * 3 *
        weight_bytes(sizes.weight_format, config_.moe_intermediate_size, config_.hidden_size);
  }

  Status experts(int32_t layer, GpuLayer& to) {
    reserve_experts(to);
    const kernels::MoeSizes& sizes = weights_.moe;
    const int32_t hidden = sizes.hidden_size, inner = sizes.moe_intermediate_size;
    const auto gate_up_bytes = static_cast<size_t>(kernels::expert_gate_up_bytes(sizes));
    const auto down_bytes = static_cast<size_t>(kernels::expert_down_bytes(sizes));
    // A few at a time: packed side by side, copied together.
    constexpr int32_t kGroup = 16;
    if (staging_.bytes() == 0) staging_ = PinnedBuffer(kGroup * (gate_up_bytes + down_bytes));
    uint8_t* const gate_ups = staging_.data();
    auto* const downs = gate_ups + kGroup * gate_up_bytes;
    for (int32_t begin = 0; begin < sizes.num_experts; begin += kGroup) {
      const int32_t count = std::min(kGroup, sizes.num_experts - begin);
      std::vector<Weight> owned(3 * static_cast<size_t>(count));
      for (int32_t i = 0; i < 3 * count; ++i) {
        constexpr WeightRole kRoles[] = {WeightRole::kExpertGateProj, WeightRole::kExpertUpProj,
                                         WeightRole::kExpertDownProj};
        Weight& weight = owned[static_cast<size_t>(i)];
        const int32_t expert = begin + i / 3;
        if (auto s = read(kRoles[i % 3], weight, layer, expert); !s) return s;
        if (format_on_device(weight.matrix.format) != sizes.weight_format)
          return refuse(spec(kRoles[i % 3], layer, expert), weight.matrix.format);
      }
      options_.pool->parallel_for(count, [&](int64_t i, int32_t) {
        const Weight* const of_expert = &owned[static_cast<size_t>(3 * i)];
        const PaddedMatrix gate(of_expert[0].matrix, inner, hidden);
        const PaddedMatrix up(of_expert[1].matrix, inner, hidden);
        const PaddedMatrix down(of_expert[2].matrix, hidden, inner);
        kernels::pack_expert({.gate = gate.matrix(), .up = up.matrix(), .down = down.matrix()},
                             gate_ups + static_cast<size_t>(i) * gate_up_bytes,
                             downs + static_cast<size_t>(i) * down_bytes);
      });
      const auto n = static_cast<size_t>(count), at = static_cast<size_t>(begin);
      stream_.upload(to.gate_up.as<uint8_t>() + at * gate_up_bytes, staging_, 0, n * gate_up_bytes);
      stream_.upload(to.down.as<uint8_t>() + at * down_bytes, staging_, kGroup * gate_up_bytes,
                     n * down_bytes);
      stream_.wait();
    }
    return {};
  }

  Status make_experts(int32_t layer, GpuLayer& to) {
    reserve_experts(to);
    for (int32_t i = 0; i < 3 * config_.num_experts; ++i) count_one();
    const kernels::MoeSizes& sizes = weights_.moe;
    const uint64_t seed = *options_.random_experts + 2 * static_cast<uint64_t>(layer);
    const auto fill = [&](const DeviceBuffer& matrices, int32_t columns, uint64_t its_seed) {
      kernels::fill_moe_weights(sizes.weight_format, matrices.as<uint8_t>(),
                                static_cast<int64_t>(matrices.bytes()), columns, its_seed,
                                stream_.get());
    };
    fill(to.gate_up, sizes.hidden_size, seed);
    fill(to.down, sizes.moe_intermediate_size, seed + 1);
    stream_.wait();
    return {};
  }

  const ModelConfig& config_;
  WeightSource& source_;
  const GpuLoadOptions& options_;
  const std::function<void(int64_t, int64_t)>& progress_;
  const std::vector<WeightSpec> table_;
  std::map<std::tuple<WeightRole, int32_t, int32_t>, const WeightSpec*> specs_;
  int64_t done_ = 0;
  GpuWeights weights_;
  PinnedBuffer staging_;
  Stream stream_;
};

}  // namespace

kernels::MoeSizes gpu_moe_sizes(const ModelConfig& config) {
  kernels::MoeSizes sizes = adapter_shapes(config).moe;
  switch (config.quant_method) {
    case QuantMethod::kFp8Block128:
      sizes.weight_format = WeightFormat::kFp8Block128;
      break;
    case QuantMethod::kModelOptNvfp4:
    case QuantMethod::kCompressedTensorsNvfp4:
      sizes.weight_format = WeightFormat::kNvfp4;
      break;
    case QuantMethod::kNone:
      sizes.weight_format = WeightFormat::kBf16;
      break;
  }
  return sizes;
}

std::string why_not_on_gpu(const ModelConfig& config) {
  kernels::MoeLayerParams moe = {.sizes = gpu_moe_sizes(config)};
  if (auto why = kernels::why_unsupported(moe); !why.empty()) return why;
  // With adapters, that may come later. A plan's limits are the same on any device.
  const kernels::MoeAdapterSlot adapter;
  moe.adapters = &adapter;
  constexpr int32_t kAnyNumSms = 132;
  const kernels::MoePlan plan = kernels::plan_moe_layer(moe.sizes, 1, true, kAnyNumSms);
  if (auto why = kernels::why_unsupported(moe, plan); !why.empty()) {
    return fmt::format("{} ({} experts)", why, name(moe.sizes.weight_format));
  }
  alignas(16) char any_address[16];  // sizes alone are looked at
  const kernels::AttentionBf16Params attention = {
      .q_stride = config.q_size() + 2 * config.kv_size(),
      .kv = {.k_cache = any_address,
             .v_cache = any_address,
             .num_kv_heads = config.num_key_value_heads,
             .block_size = 16,
             .head_dim = config.head_dim},
      .num_heads = config.num_attention_heads};
  if (auto why = kernels::why_unsupported(attention); !why.empty()) return why;
  const auto why_not_linear = [](std::string_view name, int32_t in,
                                 std::initializer_list<int32_t> slices) {
    kernels::LinearShape shape = {
        .format = WeightFormat::kBf16, .in = in, .num_slices = static_cast<int32_t>(slices.size())};
    std::ranges::copy(slices, shape.slice_out);
    const std::string why = kernels::why_unsupported(shape);
    return why.empty() ? why : fmt::format("{}: {}", name, why);
  };
  const int32_t hidden = config.hidden_size, inner = config.intermediate_size;
  std::string why =
      why_not_linear("q, k and v", hidden, {config.q_size(), config.kv_size(), config.kv_size()});
  if (why.empty()) why = why_not_linear("o", config.q_size(), {hidden});
  for (const bool is_moe : config.is_moe_layer) {
    if (!why.empty()) break;
    why = is_moe ? why_not_linear("router", hidden, {config.num_experts})
                 : why_not_linear("gate and up", hidden, {inner, inner});
    if (why.empty() && !is_moe) why = why_not_linear("down", inner, {hidden});
  }
  return why;
}

size_t gpu_weight_bytes(const ModelConfig& config) {
  const WeightFormat experts = gpu_moe_sizes(config).weight_format;
  size_t bytes = 0;
  for (const WeightSpec& spec : weight_table(config)) {
    if (spec.cols == 0) continue;
    // Projections that are NVFP4 in the checkpoint are BF16 on the device.
    const bool keeps_format = spec.expert >= 0 || (is_usually_quantised(spec.role) &&
                                                   experts == WeightFormat::kFp8Block128);
    bytes += weight_bytes(keeps_format ? experts : WeightFormat::kBf16, padded(spec.rows),
                          padded(spec.cols));
    if (spec.role == WeightRole::kEmbedding && config.tie_word_embeddings)
      bytes += weight_bytes(WeightFormat::kBf16, padded(spec.rows), padded(spec.cols));
  }
  return bytes;
}

Result<GpuWeights> load_gpu_weights(const ModelConfig& config, WeightSource& source,
                                    const GpuLoadOptions& options,
                                    const std::function<void(int64_t, int64_t)>& progress) {
  return Loader(config, source, options, progress).load();
}

}  // namespace braid

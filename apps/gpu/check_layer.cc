#include "apps/gpu/check_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
#include <thread>

#include "base/bf16.h"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/pack.h"
#include "quant/e4m3.h"
#include "reference/moe_stages.h"

namespace braid::apps {
namespace {

using Row = std::vector<double>;

std::vector<uint8_t> read(const DeviceBuffer& buffer, int64_t offset, int64_t bytes) {
  std::vector<uint8_t> out(static_cast<size_t>(bytes));
  buffer.download_bytes(out.data(), out.size(), static_cast<size_t>(offset));
  return out;
}

using Use = std::function<void(int32_t row, int32_t column, double value)>;

float float_at(const uint8_t* at) {
  float value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}
uint32_t word_at(const uint8_t* at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}
double bf16_of_bits(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

// Each weight of 128 packed rows. Rows of 8..15 of each 16 have the second scale.
void read_fp8_rows(const uint8_t* rows, int32_t columns, const Use& use) {
  for (int32_t k = 0; k < columns / 128; ++k) {
    const uint8_t* const tile = rows + k * kernels::kWeightTileBytes;
    for (int32_t r = 0; r < 128; ++r) {
      const double scale =
          float_at(rows + columns / 128 * kernels::kWeightTileBytes + 8 * k + r / 8 % 2 * 4);
      for (int32_t c = 0; c < 128; ++c)
        use(r, 128 * k + c, scale * from_e4m3(tile[kernels::swizzled(r, c)]));
    }
  }
}

void read_bf16_rows(const uint8_t* rows, int32_t columns, const Use& use) {
  for (int32_t r = 0; r < 128; ++r) {
    for (int32_t c = 0; c < columns; c += 2) {
      const uint32_t pair =
          word_at(rows + c / 64 * kernels::kWeightTileBytes + kernels::swizzled(r, c % 64 * 2));
      use(r, c, bf16_of_bits(pair & 0xffff)), use(r, c + 1, bf16_of_bits(pair >> 16));
    }
  }
}

// Decodes as the lanes of the kernel do.
void read_nvfp4_rows(const uint8_t* rows, int32_t columns, const Use& use) {
  const uint8_t* const behind = rows + columns / 128 * kernels::kNvfp4BlockBytes;
  for (int32_t i = 0; i < columns / 128 * 4 * 128 * 2; ++i) {
    const int32_t lower = i % 2, thread = i / 2 % 128, quarter = i / 256 % 4, k = i / 1024;
    const uint8_t* const block = rows + k * kernels::kNvfp4BlockBytes;
    const uint8_t* const codes =
        block + quarter * kernels::kNvfp4QuarterBytes + thread * 16 + lower * 8;
    const uint32_t words[2] = {word_at(codes), word_at(codes + 4)};
    const uint32_t left =
        (words[0] & kernels::kNvfp4LeftMask) |
        (std::rotl(words[1], kernels::kNvfp4LeftRotation) & ~kernels::kNvfp4LeftMask);
    const uint32_t scales =
        std::rotl(word_at(block + kernels::kNvfp4CodeBytes + thread * 8 + quarter / 2 * 4),
                  lower * kernels::kNvfp4ScaleRotation) &
        kernels::kNvfp4ScaleMask;
    const int32_t row = quarter / 2 * 64 + thread / 32 * 16 + lower * 8 + thread % 32 / 4;
    const double global = float_at(behind + 4 * lower) / kernels::kNvfp4Unit;
    for (int32_t j = 0; j < 8; ++j) {
      const uint32_t pair = (j < 6 ? std::rotl(words[j / 3], kernels::nvfp4_rotation(j % 3))
                                   : std::rotl(left, kernels::nvfp4_left_rotation(j - 6))) &
                            kernels::kNvfp4CodeMask;
      for (int32_t half = 0; half < 2; ++half) {
        const double code = bf16_of_bits(pair >> 16 * half & 0xffff) * 0x1p126;
        const double scale = bf16_of_bits(scales >> 16 * half & 0xffff) * 0x1p120;
        use(row, 128 * k + thread % 4 * 32 + half * 16 + quarter % 2 * 8 + j,
            code * scale * global);
      }
    }
  }
}

// sum[r] of 128 packed rows times x.
Row multiply_rows(WeightFormat format, const uint8_t* rows, const Row& x) {
  Row out(128, 0.0);
  const Use add = [&](int32_t row, int32_t column, double w) {
    out[static_cast<size_t>(row)] += w * x[static_cast<size_t>(column)];
  };
  const auto columns = static_cast<int32_t>(x.size());
  format == WeightFormat::kFp8Block128 ? read_fp8_rows(rows, columns, add)
  : format == WeightFormat::kBf16      ? read_bf16_rows(rows, columns, add)
                                       : read_nvfp4_rows(rows, columns, add);
  return out;
}

// Calls use(row, column, value) for each element of a packed fragment; returns what follows it.
template <class UseElement>
const uint8_t* read_fragment(const uint8_t* in, int32_t rows, int32_t columns,
                             const UseElement& use) {
  for (int32_t lane = 0; lane < 32; ++lane) {
    const int32_t row = lane / 4, column = 2 * (lane % 4);
    for (int32_t c = 0; c < columns; c += 8) {
      for (int32_t r = 0; r < rows; r += 8, in += 4) {
        Bf16 pair[2];
        std::memcpy(pair, in, 4);
        use(row + r, column + c, double{to_float(pair[0])});
        use(row + r, column + c + 1, double{to_float(pair[1])});
      }
    }
  }
  return in;
}

double rounded(double x) { return to_float(to_bf16(static_cast<float>(x))); }

// An expert's factors of one adapter, on the host. As in the kernels u = x A^T and v = h A^T carry
// the scaling and are rounded to BF16.
class Factors {
 public:
  Factors(const LayerToCheck& layer, int32_t expert)
      : slot_(*layer.slot), hidden_(layer.sizes.hidden_size) {
    const int32_t tiles = layer.sizes.moe_intermediate_size / 64;
    const auto part = [&](const uint8_t* at, int64_t stride, int64_t bytes) {
      return read(*layer.factors, at - layer.factors->as<uint8_t>() + expert * stride, bytes);
    };
    shrink_rows_ = slot_.one_a != 0 ? slot_.rank_gate_up : 2 * slot_.rank_gate_up;
    shrink_gate_up_ = part(slot_.shrink_gate_up, slot_.shrink_gate_up_stride,
                           int64_t{2} * hidden_ * shrink_rows_);
    expand_gate_up_ = part(slot_.expand_gate_up, slot_.expand_gate_up_stride,
                           tiles * kernels::expand_tile_bytes(slot_.rank_gate_up));
    shrink_down_ = part(slot_.shrink_down, slot_.shrink_down_stride,
                        tiles * kernels::down_shrink_tile_bytes(slot_.rank_down));
    expand_down_ = part(slot_.expand_down, slot_.expand_down_stride,
                        hidden_ / 128 * kernels::expand_tile_bytes(slot_.rank_down));
  }

  // gate and up [I] += delta
  void add_gate_up(const Row& x, Row& gate, Row& up) const {
    Row u(static_cast<size_t>(shrink_rows_), 0.0);
    const uint8_t* in = shrink_gate_up_.data();
    for (int32_t slab = 0; 64 * slab < shrink_rows_; ++slab) {
      const int32_t rows = kernels::slab_rows(shrink_rows_, slab);
      for (int32_t k = 0; k < hidden_; k += 16) {
        for (int32_t r = 0; r < rows; r += 16) {
          in = read_fragment(in, std::min(16, rows - r), 16, [&](int32_t i, int32_t j, double a) {
            u[static_cast<size_t>(64 * slab + r + i)] += a * x[static_cast<size_t>(k + j)];
          });
        }
      }
    }
    const int32_t up_at = slot_.one_a != 0 ? 0 : slot_.rank_gate_up;
    const auto u_of = [&](int32_t r, float scaling) {
      return rounded(scaling * u[static_cast<size_t>(r)]);
    };
    expand(expand_gate_up_, slot_.rank_gate_up,
           [&](int32_t tile, int32_t row, int32_t r, double b) {
             const auto feature = static_cast<size_t>(64 * tile + kernels::gate_up_feature(row));
             if (kernels::gate_up_is_up(row)) {
               up[feature] += b * u_of(up_at + r, slot_.scaling_up);
             } else {
               gate[feature] += b * u_of(r, slot_.scaling_gate);
             }
           });
  }

  // out [H] += delta
  void add_down(const Row& h, Row& out) const {
    Row v(static_cast<size_t>(slot_.rank_down), 0.0);
    const uint8_t* in = shrink_down_.data();
    for (size_t tile = 0; 64 * tile < h.size(); ++tile) {
      for (int32_t step = 0; step < kernels::rank_steps(slot_.rank_down); ++step) {
        for (size_t f = 0; f < 64; f += 16) {
          in = read_fragment(in, kernels::step_width(slot_.rank_down, step), 16,
                             [&](int32_t i, int32_t j, double a) {
                               v[static_cast<size_t>(16 * step + i)] +=
                                   a * h[64 * tile + f + static_cast<size_t>(j)];
                             });
        }
      }
    }
    for (double& value : v) value = rounded(slot_.scaling_down * value);
    expand(expand_down_, slot_.rank_down, [&](int32_t tile, int32_t row, int32_t r, double b) {
      out[static_cast<size_t>(128 * tile + row)] += b * v[static_cast<size_t>(r)];
    });
  }

 private:
  template <class UseElement>
  static void expand(const std::vector<uint8_t>& factor, int32_t rank, const UseElement& use) {
    const uint8_t* in = factor.data();
    for (int32_t tile = 0; in < factor.data() + factor.size(); ++tile) {
      for (int32_t step = 0; step < kernels::rank_steps(rank); ++step) {
        for (int32_t row = 0; row < 128; row += 16) {
          in = read_fragment(
              in, 16, kernels::step_width(rank, step),
              [&](int32_t i, int32_t j, double b) { use(tile, row + i, 16 * step + j, b); });
        }
      }
    }
  }

  kernels::MoeAdapterSlot slot_;
  int32_t hidden_, shrink_rows_;
  std::vector<uint8_t> shrink_gate_up_, expand_gate_up_, shrink_down_, expand_down_;
};

// What an expert makes of x, not weighted.
Row expert_output(const LayerToCheck& layer, int32_t expert, const Row& x) {
  const kernels::MoeSizes& s = layer.sizes;
  const int64_t gate_up_bytes = kernels::expert_gate_up_bytes(s),
                down_bytes = kernels::expert_down_bytes(s);
  const auto gate_up = read(*layer.gate_up, expert * gate_up_bytes, gate_up_bytes);
  const auto down = read(*layer.down, expert * down_bytes, down_bytes);
  Row gate(static_cast<size_t>(s.moe_intermediate_size)), up(gate), h(gate);
  const bool is_fp8 = s.weight_format == WeightFormat::kFp8Block128;
  const Row qx = is_fp8 ? reference::quantize_e4m3(x, 128) : x;
  for (int32_t tile = 0; tile < s.moe_intermediate_size / 64; ++tile) {
    const Row rows = multiply_rows(
        s.weight_format,
        gate_up.data() + tile * kernels::weight_rows_bytes(s.weight_format, s.hidden_size), qx);
    for (int32_t r = 0; r < 128; ++r) {
      Row& to = kernels::gate_up_is_up(r) ? up : gate;
      to[static_cast<size_t>(64 * tile + kernels::gate_up_feature(r))] =
          rows[static_cast<size_t>(r)];
    }
  }
  std::optional<Factors> factors;
  if (layer.slot != nullptr) factors.emplace(layer, expert);
  if (factors) factors->add_gate_up(x, gate, up);
  for (size_t i = 0; i < h.size(); ++i) {
    h[i] = rounded(gate[i] / (1 + std::exp(-gate[i])) * up[i]);
  }
  Row out;
  const Row qh = is_fp8 ? reference::quantize_e4m3(h, 64) : h;
  for (int32_t tile = 0; tile < s.hidden_size / 128; ++tile) {
    const Row rows = multiply_rows(
        s.weight_format,
        down.data() + tile * kernels::weight_rows_bytes(s.weight_format, s.moe_intermediate_size),
        qh);
    out.insert(out.end(), rows.begin(), rows.end());
  }
  if (factors) factors->add_down(h, out);
  return out;
}

}  // namespace

std::vector<double> reference_output(const LayerToCheck& layer, int32_t token) {
  const kernels::MoeSizes& s = layer.sizes;
  kernels::MoeLayerParams router;
  router.sizes = s;
  router.logits = layer.logits;
  reference::Route route = reference::route(router, token);
  if (s.num_shared_experts > 0) {
    route.experts.push_back(s.num_experts);
    route.weights.push_back(1.0);
  }
  Row x;
  for (int32_t i = 0; i < s.hidden_size; ++i)
    x.push_back(to_float(layer.x[int64_t{token} * s.hidden_size + i]));
  std::vector<Row> outputs(route.experts.size());
  {
    std::vector<std::jthread> threads;
    for (size_t k = 0; k < outputs.size(); ++k)
      threads.emplace_back([&, k] { outputs[k] = expert_output(layer, route.experts[k], x); });
  }
  Row y(static_cast<size_t>(s.hidden_size), 0.0);
  for (size_t k = 0; k < outputs.size(); ++k) {
    for (size_t i = 0; i < y.size(); ++i) y[i] += route.weights[k] * outputs[k][i];
  }
  return y;
}

std::string why_far(const std::vector<double>& got, const std::vector<double>& want,
                    double tolerance) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  if (error <= tolerance * tolerance * size) return {};  // false for NaN
  return fmt::format("off by {:.3g} of {:.3g}, allowed is {:g} of it", std::sqrt(error),
                     std::sqrt(size), tolerance);
}

}  // namespace braid::apps

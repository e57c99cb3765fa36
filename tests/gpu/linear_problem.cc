#include "tests/gpu/linear_problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>

#include "base/ids.h"
#include "kernels/linear/pack.h"
#include "reference/moe_stages.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

using kernels::LinearPlan;

size_t index(int64_t row, int64_t stride, int64_t column) {
  return static_cast<size_t>(row * stride + column);
}

}  // namespace

LinearProblem::LinearProblem(const LinearCase& linear, uint32_t seed) : test(linear) {
  std::mt19937 random(seed);
  const kernels::LinearShape& shape = test.shape;
  for (int32_t s = 0; s < shape.num_slices; ++s)
    weights_.emplace_back(random, shape.format, shape.slice_out[s], shape.in);
  for (const std::vector<int32_t>& ranks : test.ranks) {
    loras_.emplace_back();
    for (size_t s = 0; s < ranks.size(); ++s) {
      loras_.back().emplace_back(random, ranks[s], shape.in, shape.slice_out[s],
                                 0.5f + 0.25f * static_cast<float>(s));
    }
  }
  for (const float value : random_floats(random, index(test.num_tokens, shape.in, 0)))
    x.push_back(to_bf16(value));
  std::uniform_real_distribution<float> share(0.0f, 1.0f);
  for (int32_t t = 0; t < test.num_tokens; ++t) {
    const bool base = loras_.empty() || share(random) < test.base_share;
    slots.push_back(base ? kNoAdapter : static_cast<int32_t>(random() % loras_.size()));
  }
  upload();
}

void LinearProblem::upload() {
  if (test.num_tokens == 0) return;
  const kernels::LinearShape& shape = test.shape;
  std::vector<Bf16> rows(index(test.num_tokens, x_stride(), 0), Bf16{0x7fc0});
  for (int32_t t = 0; t < test.num_tokens; ++t)
    std::copy_n(&x[index(t, shape.in, 0)], shape.in, &rows[index(t, x_stride(), 0)]);
  x_ = DeviceBuffer::of(rows);
  std::vector<WeightMatrix> slices;
  for (const RandomMatrix& w : weights_) slices.push_back(w.view());
  std::vector<uint8_t> packed(static_cast<size_t>(kernels::linear_weight_bytes(shape)));
  kernels::pack_linear(shape, slices, packed.data());
  if (test.weight_size == 0.0f) std::fill(packed.begin(), packed.end(), uint8_t{0});
  weights_device_ = DeviceBuffer::of(packed);
  y_ = DeviceBuffer(index(test.num_tokens, y_stride(), 0) * 4);

  const auto num_slots = static_cast<int32_t>(loras_.size());
  std::vector<kernels::LinearAdapterSlot> placed;
  adapter_bytes_.clear();
  int32_t max_total_rank = 0;
  for (const std::vector<RandomLora>& loras : loras_) {
    std::vector<LoraPair> pairs;
    for (const RandomLora& lora : loras) pairs.push_back(lora.view());
    const kernels::PackedLinearAdapter adapter = kernels::pack_linear_adapter(shape, pairs);
    adapter_bytes_.push_back(DeviceBuffer::of(adapter.bytes));
    placed.push_back(adapter.placed_at(adapter_bytes_.back().data()));
    max_total_rank = std::max(max_total_rank,
                              adapter.slot.rank[0] + adapter.slot.rank[1] + adapter.slot.rank[2]);
  }
  adapters_ = DeviceBuffer::of(placed);
  if (num_slots > 0) {
    order_ = DeviceBuffer(kernels::adapter_order_bytes(test.num_tokens, num_slots));
    write_order();
  }
  size_t bytes = 0;
  kernels::linear_workspace(test.num_tokens, shape.in, max_total_rank, nullptr, &bytes);
  workspace_bytes_ = DeviceBuffer(bytes);
  workspace_ = kernels::linear_workspace(test.num_tokens, shape.in, max_total_rank,
                                         workspace_bytes_.data(), nullptr);
}

void LinearProblem::write_order() {
  std::vector<std::byte> order(order_.bytes());
  int32_t max_rank = 0;
  for (const std::vector<int32_t>& ranks : test.ranks)
    max_rank = std::max(max_rank, *std::max_element(ranks.begin(), ranks.end()));
  kernels::write_adapter_order(slots, static_cast<int32_t>(loras_.size()), max_rank, order.data());
  order_.upload_bytes(order.data(), order.size());
}

std::vector<LinearPlan> LinearProblem::plans() const {
  std::vector<LinearPlan> plans;
  const auto add = [&](const LinearPlan& plan) {
    if (why_unsupported(params(), plan).empty()) plans.push_back(plan);
  };
  add({.large_batch = true});
  for (const int32_t tile : {8, 16, 32, 64}) {
    for (const bool in_cluster : {false, true})
      add({.tile_tokens = tile, .in_cluster = in_cluster});
  }
  return plans;
}

kernels::LinearBf16Params LinearProblem::params(bool with_lora) const {
  kernels::LinearBf16Params p = {.x = x_.as<Bf16>(),
                                 .x_stride = x_stride(),
                                 .shape = test.shape,
                                 .weights = weights_device_.as<uint8_t>(),
                                 .y_stride = y_stride(),
                                 .num_tokens = test.num_tokens,
                                 .workspace = workspace_};
  if (test.float_out) {
    p.y_float = y_.as<float>();
  } else {
    p.y = y_.as<Bf16>();
  }
  if (with_lora && !loras_.empty()) {
    p.adapters = adapters_.as<kernels::LinearAdapterSlot>();
    p.order = kernels::adapter_order_at(order_.data(), test.num_tokens,
                                        static_cast<int32_t>(loras_.size()));
  }
  return p;
}

void LinearProblem::poison() {
  if (test.num_tokens == 0) return;
  y_.fill(0xff);  // NaN in both formats
  workspace_bytes_.fill(0xff);
  // Counts, at the beginning, are zero between layers.
  const auto* const counted = reinterpret_cast<const std::byte*>(workspace_.x_image);
  const std::vector<std::byte> zeros(
      static_cast<size_t>(counted - workspace_bytes_.as<std::byte>()));
  workspace_bytes_.upload_bytes(zeros.data(), zeros.size());
}

std::vector<float> LinearProblem::download_y() const {
  std::vector<float> y, outside;
  const size_t n = index(test.num_tokens, y_stride(), 0);
  const std::vector<float> all_float =
      test.float_out ? y_.download<float>(n) : std::vector<float>();
  const std::vector<Bf16> all = test.float_out ? std::vector<Bf16>() : y_.download<Bf16>(n);
  for (size_t i = 0; i < n; ++i) {
    const float value = test.float_out ? all_float[i] : to_float(all[i]);
    if (static_cast<int32_t>(i % static_cast<size_t>(y_stride())) < test.shape.out()) {
      y.push_back(value);
    } else if (!std::isnan(value)) {
      throw std::runtime_error(fmt::format("y[{}] lies outside and was written", i));
    }
  }
  return y;
}

std::vector<float> LinearProblem::run(const LinearPlan& plan, bool with_lora) {
  poison();
  const Stream stream;
  kernels::launch_linear(params(with_lora), plan, stream.get());
  stream.wait();
  return download_y();
}

LinearProblem::Wanted LinearProblem::wanted(int32_t t, bool with_lora) const {
  const kernels::LinearShape& shape = test.shape;
  std::vector<double> token_x;
  for (int32_t i = 0; i < shape.in; ++i) token_x.push_back(to_float(x[index(t, shape.in, i)]));
  const bool fp8 = shape.format == WeightFormat::kFp8Block128;
  const std::vector<double> used = fp8 ? reference::quantize_e4m3(token_x, 128) : token_x;
  // 13 bits of the FP8 accumulator over 128 columns, float elsewhere; BF16 of u and of y.
  const double of_sum = fp8 ? 0x1p-12 : 2 * fp32_gamma(shape.in);
  const int32_t slot = with_lora ? slots[static_cast<size_t>(t)] : kNoAdapter;
  Wanted wanted;
  for (size_t s = 0; s < weights_.size(); ++s) {
    const auto base = reference::multiply(weights_[s].view(), used);
    std::vector<reference::Sum> delta(base.size());
    if (slot != kNoAdapter) {
      delta = reference::lora_delta(loras_[static_cast<size_t>(slot)][s].view(), token_x,
                                    shape.slice_out[s]);
    }
    for (size_t o = 0; o < base.size(); ++o) {
      const double value = test.weight_size * base[o].value + delta[o].value;
      wanted.value.push_back(value);
      wanted.tolerance.push_back(test.weight_size * base[o].magnitude * of_sum +
                                 delta[o].magnitude * 0x1p-8 +
                                 std::abs(value) * (test.float_out ? 1e-6 : 0x1p-8) + 1e-30);
    }
  }
  return wanted;
}

std::string LinearProblem::why_wrong(const std::vector<float>& y, bool with_lora,
                                     int32_t token_step) const {
  const auto out = static_cast<size_t>(test.shape.out());
  for (int32_t t = 0; t < test.num_tokens; t += token_step) {
    const Wanted want = wanted(t, with_lora);
    const std::span<const float> row(&y[static_cast<size_t>(t) * out], out);
    if (auto why = why_not_close(row, want.value, want.tolerance); !why.empty())
      return fmt::format("token {} slot {}: {}", t, slots[static_cast<size_t>(t)], why);
  }
  return "";
}

double LinearProblem::error(const std::vector<float>& y) const {
  std::vector<float> want;
  for (int32_t t = 0; t < test.num_tokens; ++t) {
    for (const double value : wanted(t, true).value) want.push_back(static_cast<float>(value));
  }
  return relative_l2(y, want);
}

void LinearProblem::keep_token(int32_t t) {
  x = {x.begin() + t * test.shape.in, x.begin() + (t + 1) * test.shape.in};
  slots = {slots[static_cast<size_t>(t)]};
  test.num_tokens = 1;
}

}  // namespace braid::test

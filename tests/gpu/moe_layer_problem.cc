#include "tests/gpu/moe_layer_problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "base/ids.h"
#include "kernels/moe_gemm/layout.h"
#include "kernels/moe_gemm/pack.h"
#include "quant/e4m3.h"
#include "reference/moe_stages.h"
#include "tests/support/close.h"

namespace braid::test {
namespace {

using kernels::MoeLayerParams;
using kernels::MoeSizes;
using reference::Sum;

double silu(double x) { return x / (1 + std::exp(-x)); }

size_t index(int64_t a, int64_t n, int64_t b) { return static_cast<size_t>(a * n + b); }

// Element i of row `row` in a tile's image of h, and the scale it was quantised with, 0 for BF16.
struct StoredH {
  double value;
  double scale;
};
StoredH stored_h(WeightFormat format, const kernels::ActivationImage& image, int32_t num_tokens,
                 int32_t row, int32_t i, const uint8_t* h_image) {
  if (format == WeightFormat::kFp8Block128) {
    const uint8_t* const base = h_image + image.offset(i / 128);
    const int32_t tokens8 = (num_tokens + 7) / 8 * 8;
    float scale;
    std::memcpy(&scale, base + 4 * (i / 64 % 2 * tokens8 + row), 4);
    const uint8_t code = base[image.scale_bytes + kernels::swizzled(row, i % 128)];
    return {double{from_e4m3(code)} * scale, scale};
  }
  if (format == WeightFormat::kNvfp4) i = i / 128 * 128 + kernels::nvfp4_place(i % 128);
  Bf16 value;
  std::memcpy(&value, h_image + image.offset(i / 64) + kernels::swizzled(row, 2 * (i % 64)), 2);
  return {double{to_float(value)}, 0};
}

}  // namespace

LayerProblem::LayerProblem(const LayerShape& s, uint32_t seed) : shape(s) {
  std::mt19937 random(seed);
  const MoeSizes& z = s.sizes;
  const auto matrix = [&](int32_t rows, int32_t cols, bool positive) {
    return s.contents == LayerContents::kNormal
               ? RandomMatrix(random, z.weight_format, rows, cols)
               : RandomMatrix::integers(random, z.weight_format, rows, cols, positive);
  };
  for (int32_t e = 0; e < z.all_experts(); ++e) {
    gate_.push_back(matrix(z.moe_intermediate_size, z.hidden_size, true));
    up_.push_back(matrix(z.moe_intermediate_size, z.hidden_size, false));
    down_.push_back(matrix(z.hidden_size, z.moe_intermediate_size, false));
  }
  draw_inputs(random);
  const auto num_slots = static_cast<int32_t>(s.ranks.size());
  const auto factor = [&](int32_t rank, int32_t n, float size) {
    std::vector<Bf16>& values = factors_.emplace_back();
    for (const float v : random_floats(random, index(rank, n, 0), size))
      values.push_back(to_bf16(v));
    return values.data();
  };
  for (int32_t slot = 0; slot < num_slots; ++slot) {
    const int32_t rank = s.ranks[static_cast<size_t>(slot)];
    const LoraLayout layout = s.layouts.empty()
                                  ? LoraLayout::kPerExpert
                                  : s.layouts[static_cast<size_t>(slot) % s.layouts.size()];
    // Deltas about as large as what they are added to.
    const float b_size = 1.0f / std::sqrt(static_cast<float>(std::max(1, rank)));
    const float h_size = 0.3f / std::sqrt(static_cast<float>(z.moe_intermediate_size));
    std::vector<ExpertLora>& of_expert = loras_.emplace_back();
    for (int32_t e = 0; e < z.all_experts(); ++e) {
      if (rank == 0) {
        of_expert.emplace_back();
        continue;
      }
      const bool first = e == 0, shared = layout == LoraLayout::kSharedOuter;
      const Bf16* gate_a =
          shared && !first ? of_expert[0].gate.a : factor(rank, z.hidden_size, 1.0f);
      const Bf16* up_a = layout == LoraLayout::kOneA ? gate_a
                         : shared && !first          ? of_expert[0].up.a
                                                     : factor(rank, z.hidden_size, 1.0f);
      const Bf16* down_b =
          shared && !first ? of_expert[0].down.b_t : factor(rank, z.hidden_size, b_size);
      ExpertLora lora;
      lora.gate = {gate_a, factor(rank, z.moe_intermediate_size, b_size), rank, 0.9f};
      lora.up = {up_a, factor(rank, z.moe_intermediate_size, b_size), rank, 1.1f};
      lora.down = {factor(rank, z.moe_intermediate_size, h_size), down_b, rank, 0.8f};
      of_expert.push_back(lora);
    }
  }
}

void LayerProblem::draw_inputs(std::mt19937& random) {
  const MoeSizes& z = shape.sizes;
  const auto tokens = static_cast<size_t>(shape.num_tokens);
  const auto hidden = static_cast<size_t>(z.hidden_size);
  x.clear(), shared_weight.clear(), slots.clear();
  const float x_size = 1.0f / std::sqrt(static_cast<float>(z.hidden_size));
  for (const float v : random_floats(random, tokens * hidden, x_size)) x.push_back(to_bf16(v));
  if (shape.contents == LayerContents::kIntegers) {
    std::uniform_int_distribution<int> small(0, 2);
    for (Bf16& value : x) value = to_bf16(static_cast<float>(small(random)));
  } else if (shape.contents == LayerContents::kUnitVectors) {
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = to_bf16(i % hidden == i / hidden % hidden ? 64.0f : 0.0f);
  }
  logits = random_floats(random, tokens * static_cast<size_t>(z.num_experts));
  if (shape.only_expert.has_value()) {
    for (size_t t = 0; t < tokens; ++t)
      logits[index(static_cast<int64_t>(t), z.num_experts, *shape.only_expert)] = 20.0f;
  }
  if (z.num_shared_experts > 0) {
    std::uniform_real_distribution<float> weight(0.2f, 1.0f);
    for (size_t t = 0; t < tokens; ++t) shared_weight.push_back(weight(random));
  }
  const auto num_slots = static_cast<int32_t>(shape.ranks.size());
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  std::uniform_int_distribution<int32_t> any_slot(0, std::max(0, num_slots - 1));
  for (size_t t = 0; t < tokens; ++t) {
    const bool base = num_slots == 0 || uniform(random) < shape.base_share;
    slots.push_back(base ? kNoAdapter : any_slot(random));
  }
}

void LayerProblem::change_inputs(uint32_t seed) {
  std::mt19937 random(seed);
  draw_inputs(random);
  x_.upload_bytes(x.data(), x.size() * sizeof(Bf16));
  logits_.upload_bytes(logits.data(), logits.size() * sizeof(float));
  shared_weight_.upload_bytes(shared_weight.data(), shared_weight.size() * sizeof(float));
  slots_.upload_bytes(slots.data(), slots.size() * sizeof(int32_t));
}

void LayerProblem::keep_token(int32_t t) {
  const auto keep = [&](auto& values, int32_t each) {
    if (values.empty()) return;
    const auto begin = values.begin() + int64_t{t} * each;
    values = {begin, begin + each};
  };
  keep(x, shape.sizes.hidden_size);
  keep(logits, shape.sizes.num_experts);
  keep(shared_weight, 1);
  keep(slots, 1);
  keep(replay_ids, shape.sizes.top_k);
  shape.num_tokens = 1;
}

MoeLayerParams LayerProblem::host_params() const {
  MoeLayerParams p = router;
  p.sizes = shape.sizes;
  p.num_tokens = shape.num_tokens;
  p.logits = logits.data();
  p.bias = bias.empty() ? nullptr : bias.data();
  p.replay_ids = replay_ids.empty() ? nullptr : replay_ids.data();
  return p;
}

void LayerProblem::upload() {
  const MoeSizes& z = shape.sizes;
  x_ = DeviceBuffer::of(x);
  logits_ = DeviceBuffer::of(logits);
  bias_ = DeviceBuffer::of(bias);
  shared_weight_ = DeviceBuffer::of(shared_weight);
  replay_ids_ = DeviceBuffer::of(replay_ids);
  slots_ = DeviceBuffer::of(slots);
  topk_ids_ = DeviceBuffer(index(shape.num_tokens, z.top_k, 0) * 4);
  y_ = DeviceBuffer(x.size() * 2);

  const auto gate_up_bytes = static_cast<size_t>(kernels::expert_gate_up_bytes(z));
  const auto down_bytes = static_cast<size_t>(kernels::expert_down_bytes(z));
  std::vector<uint8_t> gate_up(gate_up_bytes * gate_.size()), down(down_bytes * gate_.size());
  for (size_t e = 0; e < gate_.size(); ++e) {
    kernels::pack_expert({gate_[e].view(), up_[e].view(), down_[e].view()},
                         gate_up.data() + e * gate_up_bytes, down.data() + e * down_bytes);
  }
  if (shape.weight_size == 0) {
    std::fill(gate_up.begin(), gate_up.end(), uint8_t{0});
    std::fill(down.begin(), down.end(), uint8_t{0});
  }
  gate_up_weights_ = DeviceBuffer::of(gate_up);
  down_weights_ = DeviceBuffer::of(down);

  std::vector<kernels::MoeAdapterSlot> adapters;
  adapter_bytes_.clear();
  int32_t max_rank = 8;
  for (const std::vector<ExpertLora>& experts : loras_) {
    const kernels::PackedMoeAdapter packed = kernels::pack_moe_adapter(z, experts.data());
    adapter_bytes_.push_back(DeviceBuffer::of(packed.bytes));
    adapters.push_back(packed.placed_at(adapter_bytes_.back().data()));
    max_rank = std::max({max_rank, adapters.back().rank_gate_up, adapters.back().rank_down});
  }
  adapters_ = DeviceBuffer::of(adapters);
  kernels::moe_workspace(z, shape.num_tokens, static_cast<int32_t>(loras_.size()), max_rank,
                         nullptr, &workspace_bytes_, lora_plan);
  workspace_ = DeviceBuffer(workspace_bytes_);
  router.workspace =
      kernels::moe_workspace(z, shape.num_tokens, static_cast<int32_t>(loras_.size()), max_rank,
                             workspace_.data(), nullptr, lora_plan);
  poison();
}

void LayerProblem::poison() {
  if (shape.num_tokens == 0) return;
  workspace_.fill(0xff);  // NaN in every float format, and large negative indices
  // Counts and run_ready, at the beginning, are zero between layers.
  const auto counted = reinterpret_cast<const std::byte*>(router.workspace.tiles);
  const std::vector<std::byte> zeros(static_cast<size_t>(counted - workspace_.as<std::byte>()));
  workspace_.upload_bytes(zeros.data(), zeros.size());
  y_.fill(0xff);
  topk_ids_.fill(0xff);
}

MoeLayerParams LayerProblem::device_params(bool with_lora) const {
  MoeLayerParams p = host_params();
  p.x = x_.as<Bf16>();
  p.y = y_.as<Bf16>();
  p.logits = logits_.as<float>();
  p.bias = bias.empty() ? nullptr : bias_.as<float>();
  p.shared_weight = shared_weight.empty() ? nullptr : shared_weight_.as<float>();
  p.replay_ids = replay_ids.empty() ? nullptr : replay_ids_.as<int32_t>();
  p.topk_ids = topk_ids_.as<int32_t>();
  p.weights = {gate_up_weights_.as<uint8_t>(), down_weights_.as<uint8_t>()};
  if (with_lora && !loras_.empty()) {
    p.adapters = adapters_.as<kernels::MoeAdapterSlot>();
    p.adapter_slot_of_token = slots_.as<int32_t>();
    p.num_slots = static_cast<int32_t>(loras_.size());
  }
  p.workspace = router.workspace;
  return p;
}

kernels::MoePlan LayerProblem::plan(bool with_lora) const {
  kernels::MoePlan plan =
      kernels::plan_moe_layer(shape.sizes, shape.num_tokens, with_lora && !loras_.empty(),
                              device_facts().num_sms, lora_plan);
  if (tile_tokens != 0) plan.tile_tokens = tile_tokens, plan.large_batch = false;
  plan.num_guessed_experts =
      std::min(plan.num_guessed_experts,
               kernels::most_guessed_experts(shape.sizes, plan, with_lora && !loras_.empty()));
  if (small_batch) plan.small_batch = true;
  return plan;
}

std::vector<Bf16> LayerProblem::download_y() const { return y_.download<Bf16>(x.size()); }

std::vector<float> LayerProblem::run(bool with_lora) {
  if (workspace_.data() == nullptr) upload();
  poison();
  const Stream stream;
  const ForkJoin side;
  kernels::launch_moe_layer(device_params(with_lora), plan(with_lora), stream.get(), side.get());
  stream.wait();
  std::vector<float> y;
  for (const Bf16 value : download_y()) y.push_back(to_float(value));
  return y;
}

std::string LayerProblem::why_wrong(bool with_lora) const {
  std::vector<float> want;
  return compare(with_lora, want);
}

double LayerProblem::delta_error(const std::vector<float>& y) const {
  std::vector<float> want;
  compare(true, want);
  return relative_l2(y, want);
}

std::string LayerProblem::compare(bool with_lora, std::vector<float>& want_y) const {
  const MoeSizes& z = shape.sizes;
  const int32_t hidden = z.hidden_size, width = z.moe_intermediate_size;
  const int32_t per_token = z.pairs_per_token(), tokens = shape.num_tokens;
  const MoeLayerParams host = host_params();
  const bool is_fp8 = z.weight_format == WeightFormat::kFp8Block128;
  // Of a sum, by the magnitude of its terms: the FP8 accumulator has 13 bits; a BF16 one loses less
  // than 2^-21 with each 16 products.
  const double sum_error = is_fp8 ? 0x1p-12 : std::max(hidden, width) / 16 * 0x1p-21;
  const bool exact_h = shape.contents != LayerContents::kNormal;
  const bool exact_y = shape.contents == LayerContents::kUnitVectors;
  const auto read = [&]<class T>(const T* at, size_t count) {
    std::vector<T> values(count);
    const auto offset = reinterpret_cast<const std::byte*>(at) - workspace_.as<std::byte>();
    const std::vector<std::byte> all =
        workspace_.download<std::byte>(static_cast<size_t>(offset) + count * sizeof(T));
    std::copy_n(all.data() + offset, count * sizeof(T),
                reinterpret_cast<std::byte*>(values.data()));
    return values;
  };
  const auto num_pairs = index(tokens, per_token, 0);
  const auto row_of_pair = read(router.workspace.row_of_pair, num_pairs);
  const auto weight_of_pair = read(router.workspace.weight_of_pair, num_pairs);
  const auto h_image =
      read(router.workspace.h_image,
           index(router.workspace.max_rows, kernels::image_row_bytes(z.weight_format, width), 0));
  const auto num_tiles = read(router.workspace.counts, 1)[0].num_tiles;
  // Counts and what lies behind them up to the tiles are zero for the next layer.
  const auto* const counts = reinterpret_cast<const uint8_t*>(router.workspace.counts);
  const auto kept =
      read(counts,
           static_cast<size_t>(reinterpret_cast<const uint8_t*>(router.workspace.tiles) - counts));
  for (size_t i = offsetof(kernels::MoeCounts, num_shrink_items); i < kept.size(); ++i) {
    if (kept[i] != 0)
      return fmt::format("byte {} of the workspace is {} after a layer", i, kept[i]);
  }
  const auto tiles = read(router.workspace.tiles, static_cast<size_t>(num_tiles));
  const auto topk_ids = topk_ids_.download<int32_t>(index(tokens, z.top_k, 0));
  const std::vector<Bf16> y = download_y();

  for (int32_t t = 0; t < tokens; ++t) {
    const reference::Route want = reference::route(host, t);
    std::vector<double> token_x;
    for (int32_t i = 0; i < hidden; ++i) token_x.push_back(to_float(x[index(t, hidden, i)]));
    const std::vector<double> x_q = is_fp8 ? reference::quantize_e4m3(token_x, 128) : token_x;
    const int32_t slot = with_lora ? slots[static_cast<size_t>(t)] : kNoAdapter;
    std::vector<double> y_want(static_cast<size_t>(hidden), 0.0), y_tolerance = y_want;
    for (int32_t k = 0; k < per_token; ++k) {
      const bool shared = k >= z.top_k;
      const size_t pair = index(t, per_token, k);
      const int32_t expert = shared ? z.num_experts : want.experts[static_cast<size_t>(k)];
      const double weight =
          shared ? (shared_weight.empty() ? 1.0 : shared_weight[static_cast<size_t>(t)])
                 : want.weights[static_cast<size_t>(k)];
      if (!shared && topk_ids[index(t, z.top_k, k)] != expert) {
        return fmt::format("token {} choice {}: expert {}, want {}", t, k,
                           topk_ids[index(t, z.top_k, k)], expert);
      }
      if (expert == kNoExpert) {
        if (row_of_pair[pair] != -1) return fmt::format("pair {} has a row without expert", pair);
        continue;
      }
      if (!(std::abs(weight_of_pair[pair] - weight) <= 1e-5 * std::abs(weight) + 1e-7))
        return fmt::format("token {} choice {}: weight {}, want {}", t, k, weight_of_pair[pair],
                           weight);
      const auto e = static_cast<size_t>(expert);
      const ExpertLora lora =
          slot == kNoAdapter ? ExpertLora{} : loras_[static_cast<size_t>(slot)][e];

      // h before it is quantised, and how far the kernel's may be from it: sums, BF16 of u, float
      // elsewhere.
      const auto row = row_of_pair[pair];
      const auto tile = std::find_if(tiles.begin(), tiles.end(), [&](const auto& candidate) {
        return row >= candidate.first_row && row < candidate.first_row + candidate.num_tokens;
      });
      if (tile == tiles.end() || tile->expert != expert)
        return fmt::format("pair {}: row {} is in no tile of expert {}", pair, row, expert);
      const auto image =
          kernels::activation_image(z.weight_format, tile->first_row, tile->num_tokens, width, 2);
      const auto w_gate = reference::multiply(gate_[e].view(), x_q);
      const auto w_up = reference::multiply(up_[e].view(), x_q);
      const auto l_gate = reference::lora_delta(lora.gate, token_x, width);
      const auto l_up = reference::lora_delta(lora.up, token_x, width);
      std::vector<double> h(static_cast<size_t>(width)), h_tolerance = h, h_q = h;
      for (int32_t i = 0; i < width; ++i) {
        const auto at = static_cast<size_t>(i);
        const double g = shape.weight_size * w_gate[at].value + l_gate[at].value;
        const double u = shape.weight_size * w_up[at].value + l_up[at].value;
        const double g_error = shape.weight_size * w_gate[at].magnitude * sum_error +
                               l_gate[at].magnitude * 0x1p-8 + std::abs(g) * 1e-5;
        const double u_error = shape.weight_size * w_up[at].magnitude * sum_error +
                               l_up[at].magnitude * 0x1p-8 + std::abs(u) * 1e-5;
        h[at] = silu(g) * u;
        h_tolerance[at] = 1.1 * g_error * (std::abs(u) + u_error) + std::abs(silu(g)) * u_error +
                          std::abs(h[at]) * 0x1p-8;
        const StoredH stored = stored_h(z.weight_format, image, tile->num_tokens,
                                        row - tile->first_row, i, h_image.data());
        h_q[at] = stored.value;
        if (exact_h &&
            h_q[at] != to_float(to_bf16(static_cast<float>(g) * static_cast<float>(u)))) {
          return fmt::format("token {} expert {}: h[{}] = {}, want the bits of {} * {}", t, expert,
                             i, h_q[at], g, u);
        }
        // Half a step of e4m3 is 2^-4 of the value, or 2^-10 of the scale among subnormals.
        const double rounding =
            is_fp8 ? std::max((std::abs(h[at]) + h_tolerance[at]) * 0x1p-4, stored.scale * 0x1p-10)
                   : 0;
        if (!(std::abs(h_q[at] - h[at]) <= h_tolerance[at] + rounding * 1.01)) {
          return fmt::format("token {} expert {} slot {}: h[{}] = {}, want {}, tolerance {} + {}",
                             t, expert, slot, i, h_q[at], h[at], h_tolerance[at], rounding);
        }
      }

      // The pair's output from the h that the kernel quantised, the delta from h itself.
      const auto w_down = reference::multiply(down_[e].view(), h_q);
      const auto l_down = reference::lora_delta(lora.down, h, hidden);
      const auto l_error = reference::lora_delta(lora.down, h_tolerance, hidden);
      std::vector<double> abs_error(static_cast<size_t>(hidden), 0.0);
      for (int32_t r = 0; r < lora.down.rank; ++r) {
        double v_error = 0;
        for (int32_t i = 0; i < width; ++i) {
          v_error += h_tolerance[static_cast<size_t>(i)] *
                     std::abs(to_float(lora.down.a[index(r, width, i)]));
        }
        for (int32_t o = 0; o < hidden; ++o) {
          abs_error[static_cast<size_t>(o)] +=
              v_error * lora.down.scaling * std::abs(to_float(lora.down.b_t[index(r, hidden, o)]));
        }
      }
      for (int32_t o = 0; o < hidden; ++o) {
        const auto at = static_cast<size_t>(o);
        const double value = shape.weight_size * w_down[at].value + l_down[at].value;
        // The output that is rounded to BF16 has the delta in it only where that is fused.
        const double stored = lora_plan == kernels::MoeLoraPlan::kFused
                                  ? value
                                  : shape.weight_size * w_down[at].value;
        y_want[at] += weight * value;
        y_tolerance[at] +=
            std::abs(weight) *
            (shape.weight_size * w_down[at].magnitude * sum_error + l_down[at].magnitude * 0x1p-8 +
             abs_error[at] + std::abs(stored) * 0x1p-8);
      }
    }
    want_y.insert(want_y.end(), y_want.begin(), y_want.end());
    for (int32_t o = 0; o < hidden; ++o) {
      const auto at = static_cast<size_t>(o);
      const double got = to_float(y[index(t, hidden, o)]);
      const double tolerance = exact_y ? 0 : y_tolerance[at] + std::abs(y_want[at]) * 0x1p-8;
      if (exact_y) y_want[at] = to_float(to_bf16(static_cast<float>(y_want[at])));
      if (!(std::abs(got - y_want[at]) <= tolerance)) {
        return fmt::format("token {} slot {}: y[{}] = {}, want {}, tolerance {}", t, slot, o, got,
                           y_want[at], tolerance);
      }
    }
  }
  return "";
}

}  // namespace braid::test

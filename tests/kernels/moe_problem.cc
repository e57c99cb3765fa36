#include "tests/kernels/moe_problem.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/ids.h"
#include "ops/ops.h"
#include "tests/support/close.h"

namespace braid::test {

MoeProblem::MoeProblem(const MoeShape& s, uint32_t seed) : shape(s) {
  std::mt19937 random(seed);
  const int32_t hidden = s.hidden_size, width = s.moe_intermediate_size;
  for (int32_t e = 0; e < s.num_experts; ++e) {
    experts_.push_back({RandomMatrix(random, s.format, width, hidden),
                        RandomMatrix(random, s.format, width, hidden),
                        RandomMatrix(random, s.format, hidden, width)});
    views_.push_back(
        {experts_.back().gate.view(), experts_.back().up.view(), experts_.back().down.view()});
  }
  x = random_floats(random, static_cast<size_t>(s.num_tokens) * static_cast<size_t>(hidden),
                    1.0f / std::sqrt(static_cast<float>(hidden)));
  std::vector<int32_t> ids(static_cast<size_t>(s.num_experts));
  std::iota(ids.begin(), ids.end(), 0);
  std::uniform_real_distribution<float> weight(0.05f, 1.0f);
  for (int32_t t = 0; t < s.num_tokens; ++t) {
    std::shuffle(ids.begin(), ids.end(), random);
    topk_ids.insert(topk_ids.end(), ids.begin(), ids.begin() + s.top_k);
    for (int32_t k = 0; k < s.top_k; ++k) topk_weights.push_back(weight(random));
  }
  const auto num_slots = static_cast<int32_t>(s.ranks.size());
  for (int32_t t = 0; t < s.num_tokens; ++t) slots.push_back(t % (num_slots + 1) - 1);
  for (int32_t slot = 0; slot < num_slots; ++slot) {
    const int32_t rank = s.ranks[static_cast<size_t>(slot)];
    std::vector<ExpertLora>& of_expert = expert_loras.emplace_back();
    for (int32_t e = 0; e < s.num_experts; ++e) {
      if (slot % 2 == 1 && e % 2 == 1) {
        of_expert.emplace_back();
        continue;
      }
      const size_t first = loras_.size();
      loras_.emplace_back(random, rank, hidden, width, 0.9f);
      loras_.emplace_back(random, rank, hidden, width, 1.1f);
      loras_.emplace_back(random, rank, width, hidden, 0.8f);
      ExpertLora lora = {loras_[first].view(), loras_[first + 1].view(), loras_[first + 2].view()};
      if (e % 3 == 2) lora.up.a = lora.gate.a;
      of_expert.push_back(lora);
    }
  }
  for (const auto& of_expert : expert_loras) lora_of_slot_.push_back(of_expert.data());
}

kernels::MoeParams MoeProblem::params(float* y, bool with_lora) const {
  const bool lora = with_lora && !lora_of_slot_.empty();
  return {.x = x.data(),
          .experts = views_.data(),
          .topk_ids = topk_ids.data(),
          .topk_weights = topk_weights.data(),
          .y = y,
          .num_tokens = shape.num_tokens,
          .top_k = shape.top_k,
          .num_experts = shape.num_experts,
          .hidden_size = shape.hidden_size,
          .moe_intermediate_size = shape.moe_intermediate_size,
          .routed_scaling = routed_scaling,
          .lora_of_slot = lora ? lora_of_slot_.data() : nullptr,
          .adapter_slot_of_token = lora ? slots.data() : nullptr,
          .num_slots = lora ? static_cast<int32_t>(lora_of_slot_.size()) : 0};
}

std::vector<float> MoeProblem::run(const ops::Context& context, bool with_lora) const {
  std::vector<float> y(x.size(), std::numeric_limits<float>::quiet_NaN());
  ops::moe(context, params(y.data(), with_lora));
  return y;
}

std::vector<float> MoeProblem::run(const ops::Context& context, int32_t begin, int32_t end) const {
  std::vector<float> y(static_cast<size_t>(end - begin) * static_cast<size_t>(shape.hidden_size),
                       std::numeric_limits<float>::quiet_NaN());
  kernels::MoeParams p = params(y.data(), true);
  p.x += int64_t{begin} * shape.hidden_size;
  p.topk_ids += int64_t{begin} * shape.top_k;
  p.topk_weights += int64_t{begin} * shape.top_k;
  if (p.adapter_slot_of_token != nullptr) p.adapter_slot_of_token += begin;
  p.num_tokens = end - begin;
  ops::moe(context, p);
  return y;
}

// The errors of each stage carried to the end by the derivatives: |silu'| <= 1.1, |silu(x)| <= |x|;
// silu itself is computed to a few units in the last place.
MoeWant MoeProblem::want(bool with_lora) const {
  const int32_t hidden = shape.hidden_size, width = shape.moe_intermediate_size;
  int32_t rank = 0;
  for (const int32_t r : shape.ranks) rank = std::max(rank, r);
  const double in_gamma = fp32_gamma(hidden + rank + 8), out_gamma = fp32_gamma(width + rank + 8);
  const double silu_gamma = fp32_gamma(16), sum_gamma = fp32_gamma(shape.top_k + 4);
  MoeWant want;
  for (int32_t t = 0; t < shape.num_tokens; ++t) {
    const std::vector<double> row(x.begin() + int64_t{t} * hidden,
                                  x.begin() + int64_t{t + 1} * hidden);
    const int32_t slot = with_lora ? slots[static_cast<size_t>(t)] : kNoAdapter;
    std::vector<double> y(static_cast<size_t>(hidden), 0.0), tolerance = y;
    for (int32_t k = 0; k < shape.top_k; ++k) {
      const auto pair = static_cast<size_t>(t * shape.top_k + k);
      if (topk_ids[pair] == kNoExpert) continue;
      const auto e = static_cast<size_t>(topk_ids[pair]);
      const ExpertLora* lora =
          slot == kNoAdapter ? nullptr : &expert_loras[static_cast<size_t>(slot)][e];
      const Sums gate =
          times_with_lora(experts_[e].gate, lora == nullptr ? nullptr : &lora->gate, row.data());
      const Sums up =
          times_with_lora(experts_[e].up, lora == nullptr ? nullptr : &lora->up, row.data());
      std::vector<double> z(static_cast<size_t>(width)), z_error = z;
      for (size_t i = 0; i < z.size(); ++i) {
        const double silu = gate.value[i] / (1 + std::exp(-gate.value[i]));
        const double gate_error = in_gamma * gate.magnitude[i];
        const double up_error = in_gamma * up.magnitude[i];
        z[i] = silu * up.value[i];
        z_error[i] = 1.1 * gate_error * (std::abs(up.value[i]) + up_error) +
                     std::abs(silu) * up_error + silu_gamma * std::abs(z[i]);
      }
      const LoraPair* down_lora = lora == nullptr ? nullptr : &lora->down;
      const Sums down = times_with_lora(experts_[e].down, down_lora, z.data());
      const Sums carried = times_with_lora(experts_[e].down, down_lora, z_error.data());
      const double scale = double{topk_weights[pair]} * double{routed_scaling};
      for (size_t h = 0; h < y.size(); ++h) {
        y[h] += scale * down.value[h];
        tolerance[h] += std::abs(scale) * (out_gamma * down.magnitude[h] + carried.magnitude[h] +
                                           sum_gamma * down.magnitude[h]);
      }
    }
    want.value.insert(want.value.end(), y.begin(), y.end());
    want.tolerance.insert(want.tolerance.end(), tolerance.begin(), tolerance.end());
  }
  return want;
}

}  // namespace braid::test

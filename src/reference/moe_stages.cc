#include "reference/moe_stages.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/ids.h"
#include "quant/e4m3.h"

namespace braid::reference {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Ids of the n largest scores, ties to the lowest id.
std::vector<int32_t> largest(const std::vector<double>& score, int32_t n) {
  std::vector<int32_t> order(score.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(n));
  return order;
}

// Experts outside the best groups drop to -infinity.
void keep_best_groups(std::vector<double>& score, int32_t num_groups, int32_t topk_groups) {
  const size_t size = score.size() / static_cast<size_t>(num_groups);
  std::vector<double> of_group;
  for (size_t g = 0; g < static_cast<size_t>(num_groups); ++g) {
    std::vector<double> members(score.begin() + static_cast<ptrdiff_t>(g * size),
                                score.begin() + static_cast<ptrdiff_t>((g + 1) * size));
    std::sort(members.rbegin(), members.rend());
    of_group.push_back(members[0] + (size > 1 ? members[1] : 0.0));
  }
  const std::vector<int32_t> kept = largest(of_group, topk_groups);
  for (size_t e = 0; e < score.size(); ++e) {
    const bool in =
        std::find(kept.begin(), kept.end(), static_cast<int32_t>(e / size)) != kept.end();
    if (!in) score[e] = -std::numeric_limits<double>::infinity();
  }
}

}  // namespace

Route route(const kernels::MoeLayerParams& p, int32_t token) {
  const int32_t num_experts = p.sizes.num_experts, top_k = p.sizes.top_k;
  const float* logits = p.logits + int64_t{token} * num_experts;
  const bool softmax = p.scoring == kernels::RouterScoring::kSoftmax;
  Route out;
  if (p.replay_ids != nullptr) {
    out.experts.assign(p.replay_ids + token * top_k, p.replay_ids + (token + 1) * top_k);
  } else {
    std::vector<double> choice;
    for (int32_t e = 0; e < num_experts; ++e) {
      const double bias = p.bias != nullptr ? p.bias[e] : 0.0;
      choice.push_back(softmax ? logits[e] : sigmoid(logits[e]) + bias);
    }
    if (p.num_expert_groups > 1) keep_best_groups(choice, p.num_expert_groups, p.topk_groups);
    out.experts = largest(choice, top_k);
  }
  const double top = *std::max_element(logits, logits + num_experts);
  double all = 0, chosen = 0;
  for (int32_t e = 0; e < num_experts; ++e) all += std::exp(logits[e] - top);
  for (const int32_t e : out.experts) {
    const double score = e == kNoExpert ? 0.0
                         : softmax      ? std::exp(logits[e] - top)
                                        : sigmoid(logits[e]);
    out.weights.push_back(score);
    chosen += score;
  }
  const double sum = p.norm_topk_prob ? chosen : softmax ? all : 1.0;
  for (double& w : out.weights) w = sum == 0 ? 0.0 : w / sum * p.routed_scaling;
  return out;
}

std::vector<double> quantize_e4m3(const std::vector<double>& x, int32_t block) {
  std::vector<double> out;
  for (size_t begin = 0; begin < x.size(); begin += static_cast<size_t>(block)) {
    const size_t end = std::min(x.size(), begin + static_cast<size_t>(block));
    float amax = 1e-10f;
    for (size_t i = begin; i < end; ++i) amax = std::max(amax, static_cast<float>(std::abs(x[i])));
    const float scale = amax / 448.0f, inverse = 1.0f / scale;
    for (size_t i = begin; i < end; ++i) {
      const float scaled = static_cast<float>(x[i]) * inverse;
      out.push_back(double{from_e4m3(to_e4m3(scaled))} * scale);
    }
  }
  return out;
}

std::vector<Sum> multiply(const WeightMatrix& w, const std::vector<double>& x) {
  std::vector<Sum> y(static_cast<size_t>(w.rows));
  std::vector<float> row(static_cast<size_t>(w.cols));
  for (int32_t r = 0; r < w.rows; ++r) {
    dequantize_row(w, r, row.data());
    for (size_t c = 0; c < row.size(); ++c) y[static_cast<size_t>(r)].add(x[c] * row[c]);
  }
  return y;
}

std::vector<Sum> lora_delta(const LoraPair& lora, const std::vector<double>& x, int32_t out) {
  std::vector<Sum> y(static_cast<size_t>(out));
  for (int32_t r = 0; r < lora.rank; ++r) {
    Sum u;
    for (size_t i = 0; i < x.size(); ++i)
      u.add(x[i] * to_float(lora.a[static_cast<size_t>(r) * x.size() + i]));
    for (size_t o = 0; o < y.size(); ++o) {
      const double b = lora.scaling * to_float(lora.b_t[static_cast<size_t>(r) * y.size() + o]);
      y[o].value += u.value * b;
      // The sum over x is rounded to BF16 as a whole, its float error is far below.
      y[o].magnitude += std::abs(u.value * b) + u.magnitude * std::abs(b) * 0x1p-12;
    }
  }
  return y;
}

}  // namespace braid::reference

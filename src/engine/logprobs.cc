#include "engine/logprobs.h"

#include <algorithm>
#include <cmath>

namespace braid {
namespace {

using Candidate = std::pair<int32_t, float>;

bool comes_first(const Candidate& a, const Candidate& b) {
  return a.second != b.second ? a.second > b.second : a.first < b.first;
}

}  // namespace

TokenLogprob compute_logprob(std::span<const float> logits, int32_t token, int32_t num_top) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  const float own = logits[token];
  double sum = 0;
  int32_t rank = 1;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - largest);
    rank += logit > own;
  }
  const double log_sum = largest + std::log(sum);
  const auto logprob_of = [&](float logit) { return static_cast<float>(logit - log_sum); };

  TokenLogprob result = {.token = token, .logprob = logprob_of(own), .rank = rank};
  const auto wanted = std::min<size_t>(num_top, logits.size());
  if (wanted == 0) return result;
  // A heap of the best so far, the worst of them in front.
  auto& top = result.top;
  top.reserve(wanted + 1);
  for (size_t id = 0; id < logits.size(); ++id) {
    const Candidate candidate = {static_cast<int32_t>(id), logits[id]};
    if (top.size() == wanted && !comes_first(candidate, top.front())) continue;
    top.push_back(candidate);
    std::push_heap(top.begin(), top.end(), comes_first);
    if (top.size() > wanted) {
      std::pop_heap(top.begin(), top.end(), comes_first);
      top.pop_back();
    }
  }
  std::sort(top.begin(), top.end(), comes_first);
  for (auto& [id, value] : top) value = logprob_of(value);
  return result;
}

}  // namespace braid

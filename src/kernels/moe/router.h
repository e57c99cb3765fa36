#pragma once

#include <cstdint>
#include <string>

namespace braid::kernels {

// Picks top_k experts a token from router logits: softmax over all experts in float, the largest
// top_k (ties to the lowest id), renormalised to sum 1 where norm_topk_prob is set.
struct RouterParams {
  const float* logits = nullptr;  // [T, E], contiguous
  int32_t* topk_ids = nullptr;    // [T, K], by falling probability
  float* topk_weights = nullptr;  // [T, K]
  int32_t num_tokens = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;  // in [1, E]
  bool norm_topk_prob = true;
};

std::string why_unsupported(const RouterParams& p);

}  // namespace braid::kernels

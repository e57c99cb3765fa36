#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/moe/moe.h"
#include "ops/context.h"
#include "tests/kernels/random_weights.h"

namespace braid::test {

struct MoeShape {
  WeightFormat format = WeightFormat::kF32;
  int32_t num_tokens = 1;
  int32_t top_k = 1;
  int32_t num_experts = 1;
  int32_t hidden_size = 32;
  int32_t moe_intermediate_size = 32;
  std::vector<int32_t> ranks = {};  // one a slot; empty: no adapters
};

// Values of y and how far each may be off.
struct MoeWant {
  std::vector<double> value;
  std::vector<double> tolerance;
};

// A MoE layer with random contents; what is public may be changed before a run. Token t has adapter
// slot (t mod (slots + 1)) - 1. Odd slots adapt the even experts only (rank 0 on the others), and
// on every third expert gate and up share their A.
class MoeProblem {
 public:
  MoeProblem(const MoeShape& shape, uint32_t seed);

  // [T, H], poisoned with NaN first.
  std::vector<float> run(const ops::Context& context, bool with_lora = true) const;
  // The tokens [begin, end) alone.
  std::vector<float> run(const ops::Context& context, int32_t begin, int32_t end) const;
  MoeWant want(bool with_lora = true) const;

  MoeShape shape;
  std::vector<float> x;             // [T, H]
  std::vector<int32_t> topk_ids;    // [T, K]
  std::vector<float> topk_weights;  // [T, K]
  std::vector<int32_t> slots;       // [T]
  float routed_scaling = 1.0f;
  std::vector<std::vector<ExpertLora>> expert_loras;  // [slots][E]

 private:
  kernels::MoeParams params(float* y, bool with_lora) const;

  struct Expert {
    RandomMatrix gate, up, down;
  };
  std::vector<Expert> experts_;
  std::vector<kernels::ExpertWeights> views_;
  std::vector<RandomLora> loras_;
  std::vector<const ExpertLora*> lora_of_slot_;
};

}  // namespace braid::test

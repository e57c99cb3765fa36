#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "adapter/adapter_pool.h"

namespace braid::test {

// What an adapter of a test has.
struct AdapterRecipe {
  int32_t rank = 8;
  bool mixed_ranks = false;  // `rank` or less, another one on each module
  bool attention = true;     // but for k_proj
  bool router = true;
  bool experts = true;
  bool mlp = true;
  bool lm_head = true;
  bool embedding = true;
  bool one_a = false;         // of gate and up
  bool shared_outer = false;  // A of gate and up, and B of down, of all experts; not mixed_ranks
};

// An adapter of a model, and the same one of a model that is as wide as the device's, the factors
// with the zeros that padding is to give them.
class TwinAdapters {
 public:
  TwinAdapters(const ModelConfig& config, const AdapterShapes& shapes, const AdapterRecipe& recipe,
               uint32_t seed);
  TwinAdapters(const TwinAdapters&) = delete;
  TwinAdapters& operator=(const TwinAdapters&) = delete;

  Adapter own;
  Adapter wide;

 private:
  template <class T>
  struct Twins {
    T own, wide;
  };
  int32_t draw_rank();
  Twins<const Bf16*> draw_factor(int32_t rank, int32_t cols, int32_t wide_cols);
  Twins<LoraPair> draw_pair(int32_t in, int32_t wide_in, int32_t out, int32_t wide_out,
                            const Twins<LoraPair>* with_a_of = nullptr);
  Twins<ExpertLora> draw_expert(const ModelConfig& config, const kernels::MoeSizes& sizes);

  AdapterRecipe recipe_;
  std::mt19937 random_;
  std::deque<std::vector<Bf16>> memory_;
};

// What the pool makes of an adapter, which it can hold.
std::shared_ptr<const Adapter> packed(const AdapterPool& pool, const Adapter& adapter);

// Three layers, of which the second is dense; every size is one that the device pads.
ModelConfig padded_model();
AdapterShapes padded_shapes();

}  // namespace braid::test

#pragma once

#include <cstdint>
#include <vector>

#include "kernels/lora/lora_pair.h"
#include "kernels/moe_gemm/moe_layer.h"
#include "quant/weight_matrix.h"

namespace braid::reference {

// The stages of the quantised MoE layer one by one, in double, so that each can be compared where
// the kernels round: the oracle of kernels/moe_gemm.

// A sum and the sum of the magnitudes of its terms: rounding errors are multiples of the latter.
struct Sum {
  double value = 0;
  double magnitude = 0;

  void add(double term) {
    value += term;
    magnitude += term < 0 ? -term : term;
  }
};

struct Route {
  std::vector<int32_t> experts;  // [K]
  std::vector<double> weights;   // [K], routed_scaling in them
};

// The choice of the router for one token; reads only the router's fields of p. Scores are computed
// in float where the choice depends on them, so that near ties fall as they do in the kernel.
Route route(const kernels::MoeLayerParams& p, int32_t token);

// x rounded to e4m3 with one float scale for each `block` elements (amax / 448).
std::vector<double> quantize_e4m3(const std::vector<double>& x, int32_t block);

// w x for every row of w.
std::vector<Sum> multiply(const WeightMatrix& w, const std::vector<double>& x);

// scaling * (x A^T) B^T; magnitude also counts the terms of x A^T.
std::vector<Sum> lora_delta(const LoraPair& lora, const std::vector<double>& x, int32_t out);

}  // namespace braid::reference

#pragma once

#include <cstdint>
#include <optional>

#include "adapter/factor_store.h"
#include "adapter/named_tensor.h"
#include "base/result.h"
#include "checkpoint/model_config.h"

namespace braid {

// A pair of 3-D `target_parameters` factors: A [E rank, in] and B [out, E rank] of gate_up_proj,
// (in, out) = (H, 2I), or of down_proj, (I, H). Swapped, A is as wide as the output.
struct ExpertParameter {
  NamedTensor a, b;
  bool is_gate_up = false;
  std::optional<bool> swapped;  // nothing: in == out, shapes do not tell
  int32_t rank = 0;             // per expert

  const char* name() const { return is_gate_up ? "gate_up_proj" : "down_proj"; }
};

// Tells by the shapes which parameter a pair belongs to.
//
// Errors  kInvalidArgument (not of this model)  kCorrupt (A and B do not fit each other)
Result<ExpertParameter> recognise_parameter(const NamedTensor& a, const NamedTensor& b,
                                            const ModelConfig& model);

// The factors of one expert as views into the pair.
struct ExpertFactors {
  FactorView a;    // [rank, in]
  FactorView b_t;  // [rank, out]
};

// `swapped`: of the orientation found for the file. `grouped`: column e rank + k of B belongs to
// expert e, otherwise column k E + e.
ExpertFactors factors_of_expert(const ExpertParameter& parameter, int32_t expert,
                                int32_t num_experts, bool swapped, bool grouped);

}  // namespace braid

#include "adapter/expert_parameter.h"

namespace braid {

Result<ExpertParameter> recognise_parameter(const NamedTensor& a, const NamedTensor& b,
                                            const ModelConfig& model) {
  const int64_t num_experts = model.num_experts;
  const int64_t hidden = model.hidden_size, expert = model.moe_intermediate_size;
  const std::string need = fmt::format(
      "[{0} rank, in] with lora_B [out, {0} rank], (in, out) = ({1}, {2}) for gate_up_proj or "
      "({3}, {1}) for down_proj, or swapped",
      num_experts, hidden, 2 * expert, expert);
  if (a.shape().size() != 2) return wrong_shape(a, need);
  if (b.shape().size() != 2) return wrong_shape(b, need);
  const int64_t rows = a.shape()[0];
  if (rows != b.shape()[1]) {
    return fail(ErrorCode::kCorrupt, "tensor {} has {} rows, but tensor {} has {} columns", *a.name,
                rows, *b.name, b.shape()[1]);
  }
  if (rows % num_experts != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "tensor {} has {} rows, need a multiple of the base model's {} experts", *a.name,
                rows, num_experts);
  }
  const auto is = [&](int64_t in, int64_t out) {
    return a.shape()[1] == in && b.shape()[0] == out;
  };
  const bool gate_up = is(hidden, 2 * expert), gate_up_swapped = is(2 * expert, hidden);
  const bool down = is(expert, hidden), down_swapped = is(hidden, expert);
  const bool normal = gate_up || down, swapped = gate_up_swapped || down_swapped;
  if (!normal && !swapped) {
    return wrong_shape(a, need + fmt::format(" (lora_B is {})", to_string(b.shape())));
  }
  return ExpertParameter{.a = a,
                         .b = b,
                         .is_gate_up = gate_up || gate_up_swapped,
                         .swapped = normal != swapped ? std::optional(swapped) : std::nullopt,
                         .rank = static_cast<int32_t>(rows / num_experts)};
}

// Delta of expert e = B[:, columns of e] * A[rows of e]; of a swapped pair the transpose of that.
ExpertFactors factors_of_expert(const ExpertParameter& parameter, int32_t expert,
                                int32_t num_experts, bool swapped, bool grouped) {
  const NamedTensor &a = parameter.a, &b = parameter.b;
  const int64_t rank = parameter.rank, a_width = a.shape()[1], num_columns = rank * num_experts;
  // A's rows of this expert, as they lie: [rank, a_width].
  const FactorView rows = {.tensor = a.view,
                           .name = a.name,
                           .offset = expert * rank * a_width,
                           .row_stride = a_width,
                           .col_stride = 1,
                           .rows = parameter.rank,
                           .cols = static_cast<int32_t>(a_width)};
  // B's columns of this expert, transposed: [rank, b_height].
  const FactorView columns = {.tensor = b.view,
                              .name = b.name,
                              .offset = grouped ? expert * rank : expert,
                              .row_stride = grouped ? 1 : num_experts,
                              .col_stride = num_columns,
                              .rows = parameter.rank,
                              .cols = static_cast<int32_t>(b.shape()[0])};
  return swapped ? ExpertFactors{columns, rows} : ExpertFactors{rows, columns};
}

}  // namespace braid

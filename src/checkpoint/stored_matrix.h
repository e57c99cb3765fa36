#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "checkpoint/weight_source.h"
#include "tensor/tensor_view.h"

namespace braid {

// The tensors of a checkpoint that make up one weight matrix, under their names after the module's.
struct StoredMatrix {
  std::string module;  // for messages
  std::optional<TensorView> weight;
  std::optional<TensorView> weight_scale_inv;     // FP8: multiplies, despite its name
  std::optional<TensorView> weight_scale;         // NVFP4: e4m3 per 16 columns
  std::optional<TensorView> weight_scale_2;       // NVFP4, ModelOpt: the matrix's scale
  std::optional<TensorView> input_scale;          // checked; activations stay unquantised
  std::optional<TensorView> weight_packed;        // NVFP4, compressed-tensors
  std::optional<TensorView> weight_global_scale;  // reciprocal of the matrix's scale
  std::optional<TensorView> input_global_scale;   // checked; activations stay unquantised
};

// The matrix these tensors mean, used in place where alignment allows. `owner` keeps the views'
// bytes alive.
//
// Errors  kCorrupt (shape, dtype, scale missing or one too many, NaN or non-positive scale)
//         kUnsupported (a storage this build does not know)
Result<Weight> read_stored_matrix(const StoredMatrix& stored, int32_t rows, int32_t cols,
                                  std::shared_ptr<const void> owner);

}  // namespace braid

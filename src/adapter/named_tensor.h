#pragma once

#include <string>

#include "base/result.h"
#include "tensor/tensor_view.h"

namespace braid {

// A tensor of an adapter file; both owned by the file's map.
struct NamedTensor {
  const TensorView* view = nullptr;
  const std::string* name = nullptr;

  const Shape& shape() const { return view->shape; }
};

// A shape that this base model cannot have; `need` is what it can.
inline tl::unexpected<Error> wrong_shape(const NamedTensor& tensor, const std::string& need) {
  return fail(
      ErrorCode::kInvalidArgument,
      "tensor {} has shape {}, this base model needs {}; was the adapter trained on another "
      "model?",
      *tensor.name, to_string(tensor.shape()), need);
}

}  // namespace braid

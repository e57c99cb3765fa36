#include "tensor/dtype.h"

#include "base/check.h"

namespace braid {

size_t size_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF64:
    case Dtype::kI64:
    case Dtype::kU64:
      return 8;
    case Dtype::kF32:
    case Dtype::kI32:
    case Dtype::kU32:
      return 4;
    case Dtype::kF16:
    case Dtype::kBf16:
    case Dtype::kI16:
    case Dtype::kU16:
      return 2;
    case Dtype::kF8E4M3:
    case Dtype::kF8E5M2:
    case Dtype::kI8:
    case Dtype::kU8:
    case Dtype::kBool:
      return 1;
  }
  BRAID_UNREACHABLE(static_cast<int>(dtype));
}

std::string_view name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF64:
      return "F64";
    case Dtype::kF32:
      return "F32";
    case Dtype::kF16:
      return "F16";
    case Dtype::kBf16:
      return "BF16";
    case Dtype::kF8E4M3:
      return "F8_E4M3";
    case Dtype::kF8E5M2:
      return "F8_E5M2";
    case Dtype::kI64:
      return "I64";
    case Dtype::kI32:
      return "I32";
    case Dtype::kI16:
      return "I16";
    case Dtype::kI8:
      return "I8";
    case Dtype::kU64:
      return "U64";
    case Dtype::kU32:
      return "U32";
    case Dtype::kU16:
      return "U16";
    case Dtype::kU8:
      return "U8";
    case Dtype::kBool:
      return "BOOL";
  }
  BRAID_UNREACHABLE(static_cast<int>(dtype));
}

}  // namespace braid

#pragma once

#include "base/json_fwd.h"
#include "base/result.h"
#include "checkpoint/model_config.h"

namespace braid {

// What `quantization_config` of config.json and hf_quant_config.json (each may be null) say about
// the storage of linear weights. Both may be there; they must then name the same method.
//
// Errors  kCorrupt (wrong types, contradiction)  kUnsupported (a method this build does not know)
Result<QuantMethod> parse_quant_method(const Json& quantization_config,
                                       const Json& hf_quant_config);

}  // namespace braid

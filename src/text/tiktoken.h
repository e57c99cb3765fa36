#pragma once

#include <string>

#include "base/json_fwd.h"
#include "base/result.h"

namespace braid::text {

// The splitting pattern of a tiktoken vocabulary. The file does not say; the class named in
// tokenizer_config.json does: TikTokenTokenizer is Kimi's, QWenTokenizer and its successors are
// Qwen's.
//
// Errors  kUnsupported (another class, or none)
Result<std::string> tiktoken_pattern_of(const Json& config);

}  // namespace braid::text

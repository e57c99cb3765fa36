#pragma once

#include <string>

namespace braid {

enum class GrammarKind {
  kRegex,       ///< text: an expression that the whole reply matches
  kJsonSchema,  ///< text: a JSON Schema; the reply is JSON that is valid against it
  kJsonObject,  ///< text is empty; the reply is any JSON object
};

/// What a reply must look like. docs/structured-output.md has what expressions and schemas may
/// hold.
struct OutputGrammar {
  GrammarKind kind = GrammarKind::kJsonObject;
  std::string text = {};
  bool operator==(const OutputGrammar&) const = default;
};

}  // namespace braid

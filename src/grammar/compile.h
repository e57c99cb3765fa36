#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "grammar/grammar.h"
#include "grammar/vocabulary.h"

namespace braid::grammar {

using CompiledGrammar = Result<std::shared_ptr<Grammar>>;

// The texts that the whole expression matches.
//
// Errors  those of parse_regex and NetworkBuilder::build
CompiledGrammar compile_regex(std::string_view regex, std::shared_ptr<const Vocabulary> vocabulary);

// Errors  those of add_json_schema and NetworkBuilder::build
CompiledGrammar compile_json_schema(std::string_view schema,
                                    std::shared_ptr<const Vocabulary> vocabulary);

// Any JSON object.
//
// Errors  those of NetworkBuilder::build: the vocabulary cannot write JSON
CompiledGrammar compile_json_object(std::shared_ptr<const Vocabulary> vocabulary);

}  // namespace braid::grammar

#pragma once

#include <optional>

#include "braid/output_grammar.h"
#include "server/json_fields.h"

namespace braid::server {

// What a reply must look like, by any of the names in use, of which a request may have one:
//   response_format      OpenAI: {"type": "text" | "json_object" | "json_schema", "json_schema":
//                        {"schema"}}
//   structured_outputs   vLLM: {"json", "regex", "choice" or "json_object"}
//   guided_json, guided_regex, guided_choice  vLLM, older
//   json_schema, regex   SGLang
// Grammars in EBNF are refused.
void read_grammar(JsonFields& fields, std::optional<OutputGrammar>& grammar);

}  // namespace braid::server

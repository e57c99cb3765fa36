#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "grammar/network.h"

namespace braid::grammar {

struct SchemaLimits {
  size_t max_bytes = 256 << 10;
  int max_depth = 64;           // of the schema's own text
  int32_t max_members = 10000;  // members of all its objects together
};

// Adds JSON texts that are valid against a JSON Schema to a network without rules. Not every valid
// text is among them: members come in the schema's order, and what the schema leaves open is
// written plainly. docs/structured-output.md has the list of keywords.
//
// Errors  kUnsupported      a keyword this build would have to ignore, by name and JSON pointer
//         kInvalidArgument  not JSON; a keyword's value makes no sense; nothing can be valid; a
//                           limit is exceeded
Status add_json_schema(NetworkBuilder& net, std::string_view schema,
                       const SchemaLimits& limits = {});

}  // namespace braid::grammar

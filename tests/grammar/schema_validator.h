#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace braid::test {

// Empty when the value is valid against the schema, else where it is not. A plain reading of JSON
// Schema 2020-12 with nothing of the grammar library in it; for the keywords of the tests' schemas,
// throws for others.
std::string why_not_valid(const nlohmann::json& value, const nlohmann::json& schema);

}  // namespace braid::test

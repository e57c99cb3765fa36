// What is wrong with a schema, by name and place.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/grammar/grammar_texts.h"

namespace braid::test {
namespace {

using grammar::compile_json_schema;

std::string refused(std::string_view schema) {
  return refusal(compile_json_schema(schema, byte_vocabulary()));
}

TEST(JsonSchema, RefusesByNameAndPointer) {
  const std::pair<std::string, std::string> cases[] = {
      {R"({"properties": {"a": {"not": {}}}})",
       "#/properties/a: the keyword \"not\" is not supported"},
      {R"({"if": {}})", "#: the keyword \"if\""},
      {R"({"patternProperties": {}})", "the keyword \"patternProperties\""},
      {R"({"propertyNames": {}})", "the keyword \"propertyNames\""},
      {R"({"minProperties": 1})", "the keyword \"minProperties\""},
      {R"({"uniqueItems": true})", "the keyword \"uniqueItems\""},
      {R"({"contains": {}})", "the keyword \"contains\""},
      {R"({"multipleOf": 2})", "the keyword \"multipleOf\""},
      {R"({"nullable": true})", "the keyword \"nullable\""},
      {R"({"items": {"x-mine": 1}})", "#/items: the keyword \"x-mine\""},
      {R"({"properties": {"a": {"$id": "x"}}})", "#/properties/a: the keyword \"$id\""},
      {R"({"anyOf": [{}], "type": "object"})", "#: \"type\" beside \"anyOf\" is not supported"},
      {R"({"$ref": "#", "minLength": 1})", "\"minLength\" beside \"$ref\""},
      {R"({"enum": [1], "minimum": 0})", "\"minimum\" beside \"enum\""},
      {R"({"allOf": [{}, {}]})", "\"allOf\" with 2 schemas"},
      {R"({"oneOf": [{"type": "string"}, {"maxLength": 3}]})",
       "#: \"oneOf\" whose schemas 0 and 1 are not told apart"},
      {R"({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]})",
       "are not told apart"},
      {R"({"oneOf": [{"enum": [1, 2]}, {"const": 2}]})", "are not told apart"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "are not told apart"},
      {R"({"pattern": "a", "maxLength": 3})",
       "more than one of \"pattern\", \"format\" and a length"},
      {R"-({"pattern": "(?=a)"})-", "#/pattern: lookahead at byte 0 is not supported"},
      {R"({"format": "regex"})", "#/format: the format \"regex\"; known are date, time"},
      {R"({"items": [{}]})", "write \"prefixItems\""},
      {R"({"$ref": "http://x/y"})", "#/$ref: the reference \"http://x/y\""},
      {R"({"$ref": "#anchor"})", "the reference \"#anchor\""},
      {R"({"minimum": 1e30})", "#/minimum: the bound 1e+30"},
  };
  for (const auto& [schema, why] : cases)
    EXPECT_NE(refused(schema).find(why), std::string::npos) << schema << ": " << refused(schema);
}

TEST(JsonSchema, RefusesWhatMakesNoSense) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "not valid JSON"},
      {"{", "not valid JSON"},
      {"{\"a\": 1, \"a\": 2}", "stands twice"},
      {"1", "#: a schema is an object, true or false, this is number"},
      {"false", "#: false allows no value at all"},
      {R"({"properties": {"a": 1}})", "#/properties/a: a schema is an object"},
      {R"({"properties": []})", "#/properties: need an object of schemas"},
      {R"({"type": "strin"})", "#/type: \"strin\" is no type; known are array"},
      {R"({"type": []})", "#/type: [] is no type"},
      {R"({"type": ["null", 1]})", "is no type"},
      {R"({"required": "a"})", "#/required: need an array of strings"},
      {R"({"required": ["a"], "additionalProperties": false})", "\"a\" is not among properties"},
      {R"({"additionalProperties": 1})", "#/additionalProperties: need true, false or a schema"},
      {R"({"minLength": -1})", "#/minLength: need an integer from 0"},
      {R"({"minLength": 1.5})", "#/minLength: need an integer from 0"},
      {R"({"minLength": 3, "maxLength": 2})", "minLength 3 is above maxLength 2"},
      {R"({"minItems": 3, "maxItems": 2})", "minItems 3 is more than the 2 items"},
      {R"({"minimum": "1"})", "#/minimum: need a number"},
      {R"({"type": "integer", "minimum": 3, "maximum": 2})", "no finite text fits"},
      {R"({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2})",
       "no finite text fits"},
      {R"({"pattern": 1})", "#/pattern: need a string"},
      {R"({"pattern": "a{"})", "#/pattern: \"{\" begins no"},
      {R"({"enum": []})", "#: no constant is left"},
      {R"({"enum": 1})", "#/enum: need an array"},
      {R"({"enum": [1], "type": "string"})", "no constant is left"},
      {R"({"anyOf": []})", "#/anyOf: need an array of at least one schema"},
      {R"({"$ref": 1})", "#/$ref: need a string"},
      {R"({"$ref": "#/$defs/x"})", "\"#/$defs/x\" is not there"},
      {R"({"$ref": "#/a%zz"})", "is not there"},
      {R"({"$ref": "#"})", "no finite text fits"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})",
       "# refers to itself before anything is written"},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})",
       "no finite text fits"},
      {R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "no finite text fits"},
      {R"({"type": "string", "maxLength": 1000000})", "200000 states"},
      {R"({"items": {}, "minItems": 1000000})", "200000 states"},
  };
  for (const auto& [schema, why] : cases)
    EXPECT_NE(refused(schema).find(why), std::string::npos) << schema << ": " << refused(schema);
}

TEST(JsonSchema, LimitsOfSize) {
  std::string deep = "{}";
  for (int i = 0; i < 40; ++i) deep = R"({"items": )" + deep + "}";
  EXPECT_EQ(refused(deep), "");
  for (int i = 0; i < 40; ++i) deep = R"({"items": )" + deep + "}";
  EXPECT_NE(refused(deep).find("nested deeper than 64"), std::string::npos);
  std::string wide = "{\"properties\": {";
  for (int i = 0; i < 10001; ++i) wide += fmt::format("{}\"{}\":{{}}", i ? "," : "", i);
  EXPECT_NE(refused(wide + "}}").find("more than 10000 members"), std::string::npos);
  EXPECT_NE(refused(std::string(300000, ' ') + "{}").find("300002 bytes"), std::string::npos);
}

}  // namespace
}  // namespace braid::test

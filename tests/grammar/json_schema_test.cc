// JSON Schemas from text to the texts they allow.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/grammar/grammar_texts.h"
#include "tests/grammar/schema_validator.h"

namespace braid::test {
namespace {

using grammar::compile_json_object;
using grammar::compile_json_schema;
using nlohmann::json;

struct Case {
  std::string name;
  std::string schema;
  std::vector<std::string> yes;
  std::vector<std::string> no;
};

const Case kCases[] = {
    {"any",
     "{}",
     {"1", "\"a\"", "null", "[1, {\"a\": []}]", "{}", "-0.5e+10", "true"},
     {"", "tru", "01", "[1,]", "{\"a\"}", "\"\x01\"", "\"\\x\"", "\"\\ud800\"", "1 ", " 1"}},
    {"true", "true", {"1", "{}"}, {"x"}},
    {"surrogates",
     R"({"type": "string"})",
     {R"("\ud83d\uDE00")", R"("\u00e9")", R"("\ue000")", R"("\ud7ff")"},
     {R"("\ud83d")", R"("\ude00")", R"("\ud83d\u0041")", R"("\u12")"}},
    {"utf8", R"({"type": "string"})", {"\"\xC3\xA9\xF0\x9F\x98\x80\""}, {"\"\xC3\"", "\"\xFF\""}},
    {"object",
     R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "boolean"}}, "required": ["b", "a"]})",
     {R"({"b": 1, "a": true})", R"({"b":1,"a":false})", "{\n  \"b\": 1,\n  \"a\": true\n}"},
     {R"({"a": true, "b": 1})", R"({"b": 1})", R"({"b": 1, "a": true, "c": 1})",
      R"({"b": 1.5, "a": true})", "{}", R"({"b" :1,"a":true})", R"({"b":1 ,"a":true})",
      R"({"b":1,,"a":true})", R"({,"b":1,"a":true})"}},
    {"optional",
     R"({"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]})",
     {R"({"b":2})", R"({"a":1,"b":2})", R"({"b":2,"c":3})", R"({"a":1,"b":2,"c":3})"},
     {"{}", R"({"a":1})", R"({"a":1,"c":3})", R"({"b":2,})", R"({,"b":2})", "[]"}},
    {"all_optional",
     R"({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}})",
     {"{}", "{ }", R"({"a":1})", R"({"b":2})", R"({"a":1,"b":2})"},
     {R"({"b":2,"a":1})", R"({"c":1})"}},
    {"additional",
     R"({"type": "object", "properties": {"ab": {"const": 1}, "b\"": {}}, "additionalProperties": {"type": "null"}, "required": ["ab"]})",
     {R"({"ab":1})", R"({"ab":1,"abc":null})", R"({"ab":1,"a":null,"":null})",
      R"({"ab":1,"b":null})", R"({"ab":1,"b\"":7,"b\"c":null})"},
     {R"({"ab":1,"ab":null})", R"({"ab":1,"x":1})", R"({"a":null})", R"({"ab":1,"\u0061b":null})"}},
    {"map",
     R"({"additionalProperties": {"type": "integer"}})",
     {"{}", R"({"a":1,"b":2})"},
     {R"({"a":"1"})"}},
    {"closed", R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"a":1})"}},
    {"required_only",
     R"({"required": ["x"]})",
     {R"({"x":[1]})"},
     {"{}", R"({"y":1})", R"({"x":1,"y":1})"}},
    {"required_additional",
     R"({"required": ["x"], "additionalProperties": {"type": "null"}})",
     {R"({"x":null,"y":null})"},
     {R"({"x":1})"}},
    {"array",
     R"({"type": "array", "items": {"type": "integer"}})",
     {"[]", "[1]", "[1, 2,3]", "[ ]"},
     {"[1,]", "[,1]", "[\"a\"]", "1"}},
    {"array_bounds",
     R"({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3})",
     {"[null,null]", "[null,null,null]"},
     {"[]", "[null]", "[null,null,null,null]"}},
    {"array_max_0", R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}},
    {"array_max_1", R"({"type": "array", "maxItems": 1})", {"[]", "[1]"}, {"[1,2]"}},
    {"array_min_1", R"({"type": "array", "minItems": 1})", {"[1]", "[1,2,3]"}, {"[]"}},
    {"tuple",
     R"({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}})",
     {"[]", "[1]", "[1,2]", "[1,2,3,3]"},
     {"[2]", "[1,3]", "[1,2,2]"}},
    {"tuple_closed",
     R"({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": false, "minItems": 1})",
     {"[1]", "[1,2]"},
     {"[]", "[1,2,3]"}},
    {"tuple_bounded",
     R"({"prefixItems": [{"const": 1}], "minItems": 2, "maxItems": 3})",
     {"[1,0]", "[1,0,null]"},
     {"[1]", "[1,0,0,0]"}},
    {"length",
     R"({"type": "string", "minLength": 2, "maxLength": 3})",
     {"\"ab\"", "\"\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80\"", R"("\n\"\\")", R"("\u0001a")"},
     {"\"a\"", "\"abcd\"", R"("\u0061b")"}},
    {"min_length", R"({"minLength": 2})", {"\"ab\"", "\"abcdef\""}, {"\"a\""}},
    {"pattern",
     R"({"type": "string", "pattern": "^a\\d+$"})",
     {"\"a1\"", "\"a123\""},
     {"\"a\"", "\"xa1\"", "\"a1x\""}},
    {"pattern_search",
     R"({"type": "string", "pattern": "b\""})",
     {R"("b\"")", R"("abb\"cd\n")"},
     {"\"b\"", R"("\"b")"}},
    {"pattern_branches",
     R"({"pattern": "^a|b$"})",
     {"\"a\"", "\"ax\"", "\"xb\""},
     {"\"xa\"", "\"bx\""}},
    {"pattern_control",
     R"({"pattern": "^\\s$"})",
     {"\" \"", R"("\n")", R"("\t")", R"("\u000b")"},
     {"\"\n\"", "\"a\""}},
    {"enum",
     R"({"enum": ["a\"b", 1, -2.5, null, true, [1, {"x": "y"}], {}]})",
     {R"("a\"b")", "1", "-2.5", "null", "true", R"([1,{"x":"y"}])", R"([1, {"x": "y"}])", "{}"},
     {"\"a\"", "2", "false", "[1]"}},
    {"enum_type",
     R"({"type": ["string", "null"], "enum": ["a", 1, null]})",
     {"\"a\"", "null"},
     {"1"}},
    {"const_string", R"({"const": "\u00e9\u0001"})", {"\"\xC3\xA9\\u0001\""}, {"\"e\""}},
    {"integer",
     R"({"type": "integer"})",
     {"0", "-1", "12", "999999999999999999"},
     {"-0", "01", "1.0", "1e5", "1000000000000000000", "-"}},
    {"number",
     R"({"type": "number"})",
     {"0", "-0.0", "1.5e-7", "1E+20"},
     {"1.", ".5", "1e", "01", "1e100", "+1"}},
    {"between",
     R"({"type": "integer", "minimum": -12, "maximum": 105})",
     {"-12", "-9", "-1", "0", "9", "99", "100", "105"},
     {"-13", "-99", "106", "110", "200", "1000", "-0", "05"}},
    {"positive",
     R"({"type": "integer", "exclusiveMinimum": 0})",
     {"1", "9", "10", "123456789012345678"},
     {"0", "-1"}},
    {"at_least",
     R"({"type": "integer", "minimum": 95})",
     {"95", "99", "100", "950"},
     {"94", "9", "0"}},
    {"negative", R"({"type": "integer", "maximum": -5})", {"-5", "-10", "-99"}, {"-4", "5", "0"}},
    {"fractional_bounds",
     R"({"type": "integer", "minimum": 1.5, "maximum": 3.5})",
     {"2", "3"},
     {"1", "4"}},
    {"unit",
     R"({"type": "number", "minimum": 0, "maximum": 1})",
     {"0", "1", "0.5", "0.0", "1.00", "0.999"},
     {"-0.5", "1.01", "2", "10", "1e0"}},
    {"open_unit",
     R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})",
     {"0.5", "0.001", "0.99"},
     {"0", "1", "0.0", "1.0", "0.000"}},
    {"decimal_bounds",
     R"({"type": "number", "minimum": -1.25, "maximum": 12.5})",
     {"-1.25", "-1.2", "-0.7", "3.9", "12.5", "12.50", "12.49"},
     {"-1.26", "-1.3", "-2", "12.51", "12.6", "13"}},
    {"two_bounds",
     R"({"type": "integer", "minimum": 3, "exclusiveMinimum": 3, "maximum": 5, "exclusiveMaximum": 9})",
     {"4", "5"},
     {"3", "6"}},
    {"types",
     R"({"type": ["integer", "null", "number", "boolean"]})",
     {"1", "1.5", "null", "true", "false"},
     {"\"a\"", "[]", ""}},
    {"any_of",
     R"({"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "object", "properties": {"a": {}}, "required": ["a"]}, {"type": "object", "properties": {"ab": {}}, "required": ["ab"]}]})",
     {"1", "\"x\"", R"({"a":1})", R"({"ab":1})"},
     {"null", "{}", R"({"a":1,"ab":1})"}},
    {"one_of", R"({"oneOf": [{"type": "integer"}, {"type": "null"}]})", {"1", "null"}, {"\"\""}},
    {"one_of_tag",
     R"({"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "$defs": {
        "cat": {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind", "lives"]},
        "dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "puppy"]}}, "required": ["kind"]}}})",
     {R"({"kind":"cat","lives":9})", R"({"kind":"dog"})", R"({"kind":"puppy"})"},
     {R"({"kind":"cat"})", R"({"kind":"dog","lives":1})"}},
    {"all_of_one",
     R"({"allOf": [{"$ref": "#/definitions/n"}], "title": "n", "definitions": {"n": {"type": "null"}}})",
     {"null"},
     {"1"}},
    {"list",
     R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"]}}})",
     {R"({"value":1,"next":null})", R"({"value":1,"next":{"value":2,"next":null}})"},
     {R"({"value":1})", R"({"value":1,"next":{}})"}},
    {"tree", R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[],[[]]]"}, {"[1]", "[[]"}},
    {"pointer",
     R"({"properties": {"a/b~c": {"type": "null"}, "x": {"$ref": "#/properties/a~1b~0c"}, "y": {"$ref": "#/properties/a%2Fb~0c"}}})",
     {R"({"x":null})", R"({"y":null})"},
     {R"({"x":1})"}},
    {"date",
     R"({"format": "date"})",
     {"\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\""}},
    {"date_time",
     R"({"type": "string", "format": "date-time"})",
     {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.123+02:00\""},
     {"\"2024-01-01\"", "\"2024-01-01T24:00:00Z\""}},
    {"uuid",
     R"({"format": "uuid"})",
     {"\"123e4567-e89b-12d3-a456-426614174000\""},
     {"\"123e4567\""}},
    {"ipv4",
     R"({"format": "ipv4"})",
     {"\"255.0.19.200\""},
     {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
    {"email", R"({"format": "email"})", {"\"a.b+c@mail.example.org\""}, {"\"a@b\"", "\"@a.de\""}},
    {"annotations",
     R"({"$schema": "x", "$id": "y", "title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": true, "readOnly": false, "writeOnly": false, "$comment": "c", "type": "null"})",
     {"null"},
     {"1"}},
};

class SchemaTexts : public testing::TestWithParam<Case> {};

TEST_P(SchemaTexts, AllowsTheseAndNotThose) {
  const Case& c = GetParam();
  const auto compiled = compile_json_schema(c.schema, byte_vocabulary());
  ASSERT_TRUE(compiled.has_value()) << compiled.error().message;
  for (const auto& text : c.yes) {
    EXPECT_TRUE(accepts(compiled, text)) << text;
    EXPECT_EQ(why_not_valid(json::parse(text), json::parse(c.schema)), "") << text;
  }
  for (const auto& text : c.no) EXPECT_FALSE(accepts(compiled, text)) << text;
}

TEST_P(SchemaTexts, RandomTextsAreValid) {
  const Case& c = GetParam();
  const auto compiled = compile_json_schema(c.schema, small_vocabulary());
  ASSERT_TRUE(compiled.has_value()) << compiled.error().message;
  const json schema = json::parse(c.schema);
  int num_whole = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const RandomText drawn = random_text(*compiled, seed, 400);
    if (!drawn.is_whole) continue;
    ++num_whole;
    const json value = json::parse(drawn.text, nullptr, false);
    ASSERT_FALSE(value.is_discarded()) << drawn.text;
    EXPECT_EQ(why_not_valid(value, schema), "") << drawn.text;
  }
  EXPECT_GE(num_whole, 2);
}

TEST_P(SchemaTexts, MasksAreThoseOfTheBytes) {
  const auto compiled = compile_json_schema(GetParam().schema, small_vocabulary());
  ASSERT_TRUE(compiled.has_value());
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const auto tokens = random_text(*compiled, seed, 60, 0.05).tokens;
    for (size_t n = 0; n <= tokens.size(); n += 3) {
      ASSERT_EQ(
          why_mask_is_wrong(*compiled, {tokens.begin(), tokens.begin() + static_cast<long>(n)}), "")
          << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SchemaTexts, testing::ValuesIn(kCases),
                         [](const auto& param) { return param.param.name; });

TEST(JsonObject, IsAnyObject) {
  const auto compiled = compile_json_object(small_vocabulary());
  for (const char* text : {"{}", R"({"a": 1, "b": {"c": [true, null]}})"})
    EXPECT_TRUE(accepts(compiled, text));
  for (const char* text : {"[]", "1", "{\"a\"}", "{} "}) EXPECT_FALSE(accepts(compiled, text));
  int num_whole = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const RandomText drawn = random_text(*compiled, seed, 3000);
    if (!drawn.is_whole) continue;
    ++num_whole;
    EXPECT_TRUE(json::parse(drawn.text, nullptr, false).is_object()) << drawn.text;
  }
  EXPECT_GE(num_whole, 100);
}

// Nesting is cut at a depth where every open level can still be closed.
TEST(JsonSchema, DeepNestingEnds) {
  const auto compiled =
      compile_json_schema(R"({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object",
      "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1}, {"type": "null"}]}},
      "required": ["next"]}}})",
                          small_vocabulary());
  ASSERT_TRUE(compiled.has_value());
  grammar::Matcher matcher(*compiled);
  int depth = 0;
  const auto push = [&](std::string_view text) {
    for (const char c : text) {
      if (!matcher.push(static_cast<uint8_t>(c))) return false;
    }
    return true;
  };
  ASSERT_TRUE(push("{\"next\":"));
  std::vector<int32_t> tokens;
  while (matcher.push('{')) {
    ASSERT_TRUE(push("\"next\":"));
    const auto mask = matcher.mask();
    ASSERT_TRUE(mask.has_value());
    EXPECT_TRUE((*mask)->allows('n'));
    ++depth;
  }
  EXPECT_GE(depth, 50);
  EXPECT_TRUE(push("null"));
  for (int i = 0; i <= depth; ++i) EXPECT_TRUE(push("}"));
  EXPECT_TRUE(matcher.is_over());
}

TEST(JsonSchema, MasksNearTheDepthLimitAreExact) {
  const auto compiled = compile_json_schema(
      R"({"type": "array", "items": {"$ref": "#"}, "maxItems": 2})", small_vocabulary());
  ASSERT_TRUE(compiled.has_value());
  for (size_t depth = 55; depth <= 70; ++depth) {
    std::vector<int32_t> tokens(depth, '[');
    grammar::Matcher matcher(*compiled);
    bool fits = true;
    for (const int32_t token : tokens) fits = fits && matcher.push(token);
    if (!fits) break;
    EXPECT_EQ(why_mask_is_wrong(*compiled, tokens), "") << depth;
  }
}

// What is ambiguous at every level must not cost twice as much at every level.
TEST(JsonSchema, AmbiguityDoesNotMultiply) {
  const auto compiled = compile_json_schema(R"({"$defs": {"n": {"anyOf": [
      {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}, "x": {"type": "integer"}}, "required": ["n"]},
      {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}, "y": {"type": "integer"}}, "required": ["n"]},
      {"type": "null"}]}}, "$ref": "#/$defs/n"})",
                                            small_vocabulary());
  ASSERT_TRUE(compiled.has_value());
  std::string text;
  for (int i = 0; i < 50; ++i) text += "{\"n\":";
  text += "null";
  for (int i = 0; i < 50; ++i) text += i % 2 ? ",\"x\":1}" : ",\"y\":1}";
  EXPECT_TRUE(accepts(compiled, text));
}

}  // namespace
}  // namespace braid::test

#include "server/schema_text.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "base/json.h"

namespace braid::test {
namespace {

using server::json_text_at;

std::string at(std::string_view json, const std::vector<std::string_view>& path) {
  return std::string(json_text_at(json, path));
}

TEST(JsonTextAt, FindsValuesAsTheyAreWritten) {
  constexpr std::string_view kJson =
      R"( {"s": "a\"}{", "n" : -1.5e3 ,"t":true, "o": {"b": [1, {"x":"]"}], "a": {} }, "e": [ ]} )";
  EXPECT_EQ(at(kJson, {"s"}), R"("a\"}{")");
  EXPECT_EQ(at(kJson, {"n"}), "-1.5e3");
  EXPECT_EQ(at(kJson, {"t"}), "true");
  EXPECT_EQ(at(kJson, {"o"}), R"({"b": [1, {"x":"]"}], "a": {} })");
  EXPECT_EQ(at(kJson, {"o", "b"}), R"([1, {"x":"]"}])");
  EXPECT_EQ(at(kJson, {"o", "a"}), "{}");
  EXPECT_EQ(at(kJson, {"e"}), "[ ]");
  for (const std::vector<std::string_view>& path :
       std::vector<std::vector<std::string_view>>{{"x"}, {"b"}, {"s", "a"}, {"e", "x"}, {"o", "x"}})
    EXPECT_EQ(at(kJson, path), "");
}

TEST(JsonTextAt, EndsOnBrokenText) {
  constexpr std::string_view kJson = R"({"a": {"b": ["c\"", {"d": 1}]}, "e": 2})";
  for (size_t n = 0; n < kJson.size(); ++n) {
    at(kJson.substr(0, n), {"e"});
    at(kJson.substr(0, n), {"a", "b"});
  }
  EXPECT_EQ(at("{\"a\\", {"a"}), "");
  EXPECT_EQ(at("[1]", {"a"}), "");
}

TEST(KeepSchemaText, KeepsTheOrderOfMembers) {
  constexpr std::string_view kSchema = R"({"properties": {"z": {}, "a": {}}})";
  for (const auto& [before, after, pointer] :
       {std::tuple{R"({"response_format": {"type": "json_schema", "json_schema": {"schema": )",
                   "}}}", "/response_format/json_schema/schema"},
        std::tuple{R"({"structured_outputs": {"json": )", "}}", "/structured_outputs/json"},
        std::tuple{R"({"guided_json": )", "}", "/guided_json"},
        std::tuple{R"({"json_schema": )", "}", "/json_schema"},
        std::tuple{R"({"sampling_params": {"json_schema": )", "}}",
                   "/sampling_params/json_schema"}}) {
    const std::string body = before + std::string(kSchema) + after;
    Json request = Json::parse(body);
    server::keep_schema_text(request, body);
    EXPECT_EQ(request.at(Json::json_pointer(pointer)), kSchema) << body;
  }
}

TEST(KeepSchemaText, LeavesAllElseAlone) {
  for (const std::string body :
       {R"({"json_schema": "{}"})", R"({"json_schema": true, "prompt": "x"})", "[]", "1",
        R"({"response_format": {"type": "text"}, "sampling_params": [{"json_schema": {}}]})"}) {
    const Json before = Json::parse(body);
    Json request = before;
    server::keep_schema_text(request, body);
    EXPECT_EQ(request, before) << body;
  }
}

}  // namespace
}  // namespace braid::test

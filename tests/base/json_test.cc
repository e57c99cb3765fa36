#include "base/json.h"

#include <gtest/gtest.h>

#include <string>

namespace braid {
namespace {

TEST(ParseJson, ReadsWhatJsonAllows) {
  const auto json = parse_json(R"({"a": [1, 2.5, "x", null, true], "b": {"c": -3}})");
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ((*json)["a"][1], 2.5);
  EXPECT_EQ((*json)["b"]["c"], -3);
}

TEST(ParseJson, NamesTheByteOfASyntaxError) {
  const auto json = parse_json("{\"a\": }");
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(json.error().message.find("byte 7"), std::string::npos) << json.error().message;
}

TEST(ParseJson, RefusesAKeyTwiceInOneObjectOnly) {
  EXPECT_TRUE(parse_json(R"({"a": {"a": 1}, "b": {"a": 1}})"));
  const auto json = parse_json(R"({"a": 1, "b": {"c": 1, "c": 2}})");
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().message, "key \"c\" stands twice in one object");
}

TEST(ParseJson, RefusesDeepNestingWithoutOverflowingTheStack) {
  const std::string deep(1'000'000, '[');
  const auto json = parse_json(deep);
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().message, "nested deeper than 64 levels");
  EXPECT_TRUE(parse_json(std::string(64, '[') + std::string(64, ']')));
  EXPECT_FALSE(parse_json(std::string(65, '[') + std::string(65, ']')));
}

TEST(ParseJson, RefusesTooManyBytes) {
  const auto json = parse_json("[1, 2, 3]", {.max_bytes = 8});
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(json.error().message, "JSON text is 9 bytes, at most 8 are accepted");
}

TEST(ParseJson, RefusesTrailingTextNanAndBadUtf8) {
  EXPECT_FALSE(parse_json("{} x"));
  EXPECT_FALSE(parse_json("NaN"));
  EXPECT_FALSE(parse_json("\"\xff\""));
  EXPECT_FALSE(parse_json(""));
}

TEST(ReadJsonFile, PutsThePathInFront) {
  const auto json = read_json_file("/nonexistent/config.json");
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(json.error().message,
            "/nonexistent/config.json: cannot open for reading: No such file or directory");
}

}  // namespace
}  // namespace braid

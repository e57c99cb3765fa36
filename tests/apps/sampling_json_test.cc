#include "apps/sampling_json.h"

#include <gtest/gtest.h>

#include "apps/request_lines.h"
#include "base/json.h"

namespace braid::apps {
namespace {

std::string refusal(const char* text) {
  const auto params = sampling_from_json(Json::parse(text), {});
  return params ? "accepted" : params.error().message;
}

TEST(SamplingFromJson, ReadsEveryField) {
  const auto p = sampling_from_json(Json::parse(R"({
    "temperature": 0.5, "top_k": 3, "top_p": 0.25, "min_p": 0.125, "repetition_penalty": 2,
    "presence_penalty": -1, "frequency_penalty": 1.5, "max_tokens": 7, "min_tokens": 2,
    "seed": 18446744073709551615, "ignore_eos": true, "stop_token_ids": [5, 6], "stop": ["a", "b"],
    "logit_bias": {"42": -100, "7": 1.5}, "logprobs": 0, "prompt_logprobs": 20})"),
                                    {})
                     .value();
  EXPECT_EQ(p.temperature, 0.5f);
  EXPECT_EQ(p.top_k, 3);
  EXPECT_EQ(p.top_p, 0.25f);
  EXPECT_EQ(p.min_p, 0.125f);
  EXPECT_EQ(p.repetition_penalty, 2.0f);
  EXPECT_EQ(p.presence_penalty, -1.0f);
  EXPECT_EQ(p.frequency_penalty, 1.5f);
  EXPECT_EQ(p.max_tokens, 7);
  EXPECT_EQ(p.min_tokens, 2);
  EXPECT_EQ(p.seed, UINT64_MAX);
  EXPECT_TRUE(p.ignore_eos);
  EXPECT_EQ(p.stop_token_ids, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(p.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(p.logit_bias, (std::vector<std::pair<int32_t, float>>{{42, -100.0f}, {7, 1.5f}}));
  EXPECT_EQ(p.logprobs, 0);
  EXPECT_EQ(p.prompt_logprobs, 20);
  EXPECT_EQ(sampling_keys().size(), 16u);  // all of them are above
}

TEST(SamplingFromJson, KeepsDefaultsOfWhatIsAbsentOrNull) {
  SamplingParams defaults = {.temperature = 0.25f, .max_tokens = 9};
  defaults.stop = {"x"};
  const auto p =
      sampling_from_json(Json::parse(R"({"temperature": null, "seed": 4})"), defaults).value();
  EXPECT_EQ(p.temperature, 0.25f);
  EXPECT_EQ(p.max_tokens, 9);
  EXPECT_EQ(p.seed, 4u);
  EXPECT_EQ(p.stop, defaults.stop);
  EXPECT_EQ(sampling_from_json(Json::parse(R"({"stop": "y"})"), defaults)->stop,
            std::vector<std::string>{"y"});
}

TEST(SamplingFromJson, CutsAndRoundsNothing) {
  EXPECT_EQ(refusal(R"({"max_tokens": 4294967299})"),
            "max_tokens is 4294967299, accepted is an integer up to 2147483647");
  EXPECT_EQ(refusal(R"({"max_tokens": 2.9})"),
            "max_tokens is 2.9, accepted is an integer up to 2147483647");
  EXPECT_EQ(refusal(R"({"temperature": true})"), "temperature is true, accepted is a number");
  EXPECT_EQ(refusal(R"({"temperature": 1e300})"), "temperature is 1e+300, accepted is a number");
  EXPECT_EQ(refusal(R"({"temperature": "0"})"), "temperature is \"0\", accepted is a number");
  EXPECT_EQ(refusal(R"({"seed": -1})"),
            "seed is -1, accepted is an integer from 0 to 18446744073709551615");
  EXPECT_EQ(refusal(R"({"ignore_eos": 1})"), "ignore_eos is 1, accepted is true or false");
  EXPECT_EQ(refusal(R"({"stop": ["a", 1]})"),
            "stop is [\"a\",1], accepted is a string or an array of strings");
  EXPECT_NE(refusal(R"({"stop_token_ids": [-3000000000]})").find("stop_token_ids is"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"logit_bias": {"x": 1}})").find("{\"42\": -100}"), std::string::npos);
  EXPECT_NE(refusal(R"({"logit_bias": [1]})").find("{\"42\": -100}"), std::string::npos);
}

TEST(SamplingFromJson, HoldsValuesAgainstTheirRanges) {
  EXPECT_EQ(refusal(R"({"top_p": 0})"), "top_p is 0, accepted is above 0 and up to 1");
  EXPECT_EQ(refusal(R"({"max_tokens": 0})"), "max_tokens is 0, accepted is a number from 1");
  EXPECT_EQ(refusal(R"({"logprobs": 21})"), "logprobs is 21, accepted is 0 to 20");
  EXPECT_EQ(refusal(R"({"min_tokens": 20})"), "min_tokens is 20, accepted is 0 to max_tokens");
}

TEST(SamplingFromJson, RefusesUnknownKeysByName) {
  EXPECT_EQ(refusal(R"({"temprature": 1})").find("unknown key \"temprature\"; known are temper"),
            0u);
}

std::string line_refusal(const char* text) {
  const auto line = parse_request_line(text, {});
  return line ? "accepted" : line.error().message;
}

TEST(RequestLine, TakesTextTokensOrMessages) {
  EXPECT_EQ(parse_request_line(R"({"prompt": "a"})", {})->prompt, "a");
  EXPECT_EQ(parse_request_line(R"({"prompt": [1, 2]})", {})->prompt, Json({1, 2}));
  const auto line = parse_request_line(
      R"({"messages": [{"role": "user"}], "tools": [{}], "chat_template_kwargs": {"x": 1},
          "adapter": "sql", "top_k": 4})",
      {});
  ASSERT_TRUE(line.has_value()) << line.error().message;
  EXPECT_EQ(line->messages.size(), 1u);
  EXPECT_EQ(line->template_options, Json::parse(R"({"tools": [{}], "x": 1})"));
  EXPECT_EQ(line->adapter, "sql");
  EXPECT_EQ(line->sampling, Json::parse(R"({"top_k": 4})"));
}

TEST(RequestLine, ReadsNullAndBaseAsNoAdapter) {
  EXPECT_EQ(parse_request_line(R"({"prompt": "a", "adapter": null})", {})->adapter, "");
  EXPECT_EQ(parse_request_line(R"({"prompt": "a", "adapter": "base"})", {})->adapter, "");
}

TEST(RequestLine, NamesWhatIsWrong) {
  EXPECT_NE(line_refusal("{").find("not valid JSON"), std::string::npos);
  EXPECT_NE(line_refusal("[]").find("not a JSON object"), std::string::npos);
  EXPECT_EQ(line_refusal("{}"), "needs either \"prompt\" or \"messages\"");
  EXPECT_EQ(line_refusal(R"({"prompt": 1})"),
            "prompt is 1, accepted is a string or an array of token ids");
  EXPECT_NE(line_refusal(R"({"prompt": [1.5]})").find("array of token ids"), std::string::npos);
  EXPECT_NE(line_refusal(R"({"messages": []})").find("array of objects"), std::string::npos);
  EXPECT_NE(line_refusal(R"({"prompt": "a", "adapter": 1})").find("adapter is 1"),
            std::string::npos);
  EXPECT_EQ(line_refusal(R"({"prompt": "a", "max_token": 1})").find("unknown key \"max_token\""),
            0u);
  EXPECT_NE(line_refusal(R"({"prompt": "a", "tools": []})").find("go with \"messages\""),
            std::string::npos);
}

TEST(RequestLines, SkipBlankLinesAndNameTheirPlace) {
  std::istringstream good("{\"prompt\": \"a\"}\n\n  \n{\"prompt\": \"b\"}");
  const auto lines = read_request_lines(good, "f", {}).value();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1].place, "f:4");
  std::istringstream bad("\n{\"prompt\": \"a\", \"max_tokens\": 2.9}\n");
  EXPECT_EQ(read_request_lines(bad, "f", {}).error().message,
            "f:2: max_tokens is 2.9, accepted is an integer up to 2147483647");
}

}  // namespace
}  // namespace braid::apps

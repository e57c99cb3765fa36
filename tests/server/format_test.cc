// The answers of the three generating routes, built from events without a socket or a model.

#include <gtest/gtest.h>

#include "base/json.h"
#include "server/reply_format.h"
#include "tests/server/null_backend.h"

namespace braid::server {
namespace {

class Format : public testing::Test {
 protected:
  static Event event(std::vector<int32_t> tokens, std::string text, int32_t completion_tokens) {
    return {.tokens = std::move(tokens),
            .text = std::move(text),
            .prompt_tokens = 2,
            .cached_tokens = 1,
            .completion_tokens = completion_tokens};
  }
  static Event last(Event e, FinishReason reason, std::string matched_stop = "") {
    e.finished = true;
    e.reason = reason;
    e.matched_stop = std::move(matched_stop);
    return e;
  }
  // The chunks of several events, in order.
  static std::string chunks_of(ReplyFormat& format, const std::vector<Event>& of) {
    std::string out;
    for (const Event& e : of) out += format.chunk(0, e);
    return out;
  }
  // The JSON of each server-sent event; the framing is checked.
  static std::vector<Json> events(const std::string& text) {
    std::vector<Json> out;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find("\n\n", at);
      EXPECT_NE(end, text.npos);
      EXPECT_EQ(text.compare(at, 6, "data: "), 0);
      const std::string line = text.substr(at + 6, end - at - 6);
      EXPECT_EQ(line.find('\n'), line.npos);
      out.push_back(line == "[DONE]" ? Json("[DONE]") : Json::parse(line));
      at = end + 2;
    }
    return out;
  }

  test::NullBackend model_{std::chrono::microseconds(1000)};
  GenerationRequest request_ = {.model = "m", .prompts = {{.tokens = {'a', 'b'}, .text = "ab"}}};
  ReplyHead head_ = {.id = "id", .created = 7, .model = "m"};
};

TEST_F(Format, CompletionChunks) {
  request_.include_usage = true;
  const auto format = completion_format(request_, head_, model_);
  std::string text = chunks_of(
      *format, {event({'x'}, "\"x\n", 1), last(event({'y'}, "", 2), FinishReason::kStop, "y")});
  text += format->end_of_stream();
  const auto chunks = events(text);
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_EQ(chunks[0], Json::parse(R"({"id": "id", "object": "text_completion", "created": 7,
    "model": "m", "choices": [{"index": 0, "text": "\"x\n", "logprobs": null,
    "finish_reason": null}], "usage": null})"));
  EXPECT_EQ(chunks[1]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks[1]["choices"][0]["stop_reason"], "y");
  EXPECT_EQ(chunks[2]["choices"], Json::array());
  EXPECT_EQ(chunks[2]["usage"], Json::parse(R"({"prompt_tokens": 2, "completion_tokens": 2,
    "total_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}})"));
  EXPECT_EQ(chunks[3], "[DONE]");
}

TEST_F(Format, CompletionWithoutUsageHasNoChunkWithoutChoices) {
  const auto format = completion_format(request_, head_, model_);
  EXPECT_EQ(format->end_of_stream(), "data: [DONE]\n\n");
}

TEST_F(Format, EchoCoversThePromptInTextAndLogprobs) {
  request_.echo = request_.has_logprobs = true;
  const auto format = completion_format(request_, head_, model_);
  Event sum = last(event({'x'}, "x", 1), FinishReason::kLength);
  sum.prompt_logprobs = {{.token = 'b', .logprob = -2, .rank = 2, .top = {{'z', -1.0f}}}};
  sum.logprobs = {{.token = 'x', .logprob = -0.5f, .rank = 1, .top = {{'x', -0.5f}}}};
  std::vector<Event> sums = {sum};
  const Json choice = format->whole(std::move(sums))["choices"][0];
  EXPECT_EQ(choice["text"], "abx");
  EXPECT_EQ(choice["logprobs"], Json::parse(R"({"tokens": ["a", "b", "x"],
    "token_logprobs": [null, -2.0, -0.5], "top_logprobs": [null, {"z": -1.0, "b": -2.0},
    {"x": -0.5}], "text_offset": [0, 1, 2]})"));
}

TEST_F(Format, EqualTextsOfTokensKeepTheBetterValue) {
  // Both read as U+FFFD in JSON: bytes that are no UTF-8. The dump makes one key of the two.
  request_.has_logprobs = true;
  const auto format = completion_format(request_, head_, model_);
  Event sum = last(event({'x'}, "x", 1), FinishReason::kLength);
  sum.logprobs = {{.token = 'x', .logprob = -3, .rank = 3, .top = {{'x', -3.0f}}}};
  std::vector<Event> sums = {sum};
  const Json whole = format->whole(std::move(sums));
  EXPECT_EQ(whole["choices"][0]["logprobs"]["top_logprobs"][0]["x"], -3.0);
}

TEST_F(Format, ChatRoleComesWithTheFirstTextAndTheEndIsEmpty) {
  const auto format = chat_format(request_, head_, model_);
  const auto chunks = events(chunks_of(
      *format, {event({'x'}, "x", 1), last(event({'y'}, "y", 2), FinishReason::kLength)}));
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(chunks[0]["choices"][0]["delta"],
            Json::parse(R"({"role": "assistant", "content": "x"})"));
  EXPECT_EQ(chunks[1]["choices"][0]["delta"], Json::parse(R"({"content": "y"})"));
  EXPECT_EQ(chunks[1]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(chunks[2]["choices"][0]["delta"], Json::object());
  EXPECT_EQ(chunks[2]["choices"][0]["finish_reason"], "length");
}

TEST_F(Format, ChatWhole) {
  request_.has_logprobs = true;
  const auto format = chat_format(request_, head_, model_);
  Event sum = last(event({'x'}, "x", 1), FinishReason::kStop);
  sum.logprobs = {{.token = 'x', .logprob = -0.5f, .rank = 1, .top = {{'x', -0.5f}}}};
  std::vector<Event> sums = {sum};
  const Json whole = format->whole(std::move(sums));
  EXPECT_EQ(whole["object"], "chat.completion");
  const Json token = Json::parse(R"({"token": "x", "logprob": -0.5, "bytes": [120]})");
  EXPECT_EQ(whole["choices"][0]["logprobs"]["content"][0]["top_logprobs"], Json::array({token}));
  EXPECT_EQ(whole["choices"][0]["message"],
            Json::parse(R"({"role": "assistant", "content": "x"})"));
}

TEST_F(Format, GenerateStreamsAllSoFar) {
  const auto format = generate_format(request_, head_, model_);
  const auto chunks = events(chunks_of(
      *format, {event({'x'}, "x", 1), last(event({'y'}, "y", 2), FinishReason::kLength)}));
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[1]["text"], "xy");
  EXPECT_EQ(chunks[1]["output_ids"], Json::parse("[120, 121]"));
  EXPECT_EQ(chunks[0]["meta_info"]["finish_reason"], nullptr);
  EXPECT_EQ(chunks[1]["meta_info"]["finish_reason"],
            Json::parse(R"({"type": "length", "length": 2})"));
  EXPECT_EQ(chunks[1]["meta_info"]["completion_tokens"], 2);
}

TEST_F(Format, CountsAPromptOnceHoweverManySamples) {
  request_.prompts[0].n = 3;
  const auto format = completion_format(request_, head_, model_);
  std::vector<Event> sums(3, last(event({'x'}, "x", 1), FinishReason::kLength));
  const Json whole = format->whole(std::move(sums));
  EXPECT_EQ(whole["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(whole["usage"]["completion_tokens"], 3);
  EXPECT_EQ(whole["choices"].size(), 3u);
}

TEST_F(Format, BrokenTextIsStillJson) {
  const auto format = completion_format(request_, head_, model_);
  EXPECT_EQ(events(format->chunk(0, event({'x'}, "\xff", 1)))[0]["choices"][0]["text"],
            "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace braid::server

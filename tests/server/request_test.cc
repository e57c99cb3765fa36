// Requests of the three generating routes, read without a socket or a model.

#include <gtest/gtest.h>

#include "base/json.h"
#include "server/generation_request.h"
#include "tests/server/null_backend.h"

namespace braid::server {
namespace {

using ReadFunction = ApiResult<GenerationRequest> (*)(const Json&, const TextModel&,
                                                      const RequestDefaults&);

class ReadRequest : public testing::Test {
 protected:
  GenerationRequest read(ReadFunction function, const char* text) {
    auto request = function(Json::parse(text), model_, defaults_);
    EXPECT_TRUE(request.has_value()) << (request ? "" : request.error().message);
    return request.value_or(GenerationRequest{});
  }
  // "param: message"
  std::string refusal(ReadFunction function, const char* text) {
    const auto request = function(Json::parse(text), model_, defaults_);
    return request ? "accepted" : request.error().param + ": " + request.error().message;
  }
  static std::string text_of(const std::vector<int32_t>& tokens) {
    return {tokens.begin(), tokens.end()};
  }

  test::NullBackend model_{std::chrono::microseconds(1000)};
  RequestDefaults defaults_ = {.sampling = {.temperature = 0.75f}, .max_choices = 8};
};

TEST_F(ReadRequest, TakesDefaultsOfTheModelAndOfTheRoute) {
  const auto completion = read(read_completion_request, R"({"prompt": "ab"})");
  ASSERT_EQ(completion.prompts.size(), 1u);
  EXPECT_EQ(completion.prompts[0].tokens, (std::vector<int32_t>{'a', 'b'}));
  EXPECT_EQ(completion.prompts[0].sampling.temperature, 0.75f);
  EXPECT_EQ(completion.prompts[0].sampling.max_tokens, 16);
  EXPECT_FALSE(completion.stream);
  const auto chat = read(read_chat_request, R"({"messages": [{"role": "user", "content": "hi"}]})");
  EXPECT_EQ(chat.prompts[0].sampling.max_tokens,
            model_.max_context() - static_cast<int32_t>(chat.prompts[0].tokens.size()));
  EXPECT_EQ(read(read_generate_request, R"({"text": "a"})").prompts[0].sampling.max_tokens, 128);
}

TEST_F(ReadRequest, ReadsEverySamplingField) {
  const auto request = read(read_completion_request, R"({"prompt": [1, 2], "n": 2, "max_tokens": 7,
    "temperature": 0.5, "top_p": 0.25, "top_k": -1, "min_p": 0.125, "repetition_penalty": 2,
    "presence_penalty": -1, "frequency_penalty": 1.5, "seed": -1, "stop": "x",
    "stop_token_ids": [5], "ignore_eos": true, "min_tokens": 3, "logit_bias": {"42": -100},
    "skip_special_tokens": false, "best_of": 1, "unknown": [1]})");
  const SamplingParams& p = request.prompts[0].sampling;
  EXPECT_EQ(request.prompts[0].tokens, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(request.num_choices(), 2);
  EXPECT_EQ(p.max_tokens, 7);
  EXPECT_EQ(p.temperature, 0.5f);
  EXPECT_EQ(p.top_p, 0.25f);
  EXPECT_EQ(p.top_k, 0);
  EXPECT_EQ(p.min_p, 0.125f);
  EXPECT_EQ(p.repetition_penalty, 2.0f);
  EXPECT_EQ(p.presence_penalty, -1.0f);
  EXPECT_EQ(p.frequency_penalty, 1.5f);
  EXPECT_EQ(p.seed, ~uint64_t{0});
  EXPECT_EQ(p.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(p.stop_token_ids, std::vector<int32_t>{5});
  EXPECT_TRUE(p.ignore_eos);
  EXPECT_FALSE(p.skip_special_tokens);
  EXPECT_EQ(p.min_tokens, 3);
  EXPECT_EQ(p.logit_bias, (std::vector<std::pair<int32_t, float>>{{42, -100.0f}}));
}

TEST_F(ReadRequest, NullIsAbsent) {
  const auto request = read(read_completion_request,
                            R"({"prompt": "a", "stop": null, "logprobs": null, "suffix": null,
                                "stream_options": null, "seed": null, "model": null})");
  EXPECT_FALSE(request.has_logprobs);
  EXPECT_FALSE(request.prompts[0].has_seed);
}

TEST_F(ReadRequest, NamesTheFieldTheValueAndWhatIsAccepted) {
  const auto refused = [&](const char* text) { return refusal(read_completion_request, text); };
  EXPECT_EQ(refused(R"({"prompt": "a", "temperature": "x"})"),
            "temperature: temperature is \"x\", it must be a number");
  EXPECT_EQ(refused(R"({"prompt": "a", "max_tokens": 1.5})"),
            "max_tokens: max_tokens is 1.5, it must be an integer");
  EXPECT_EQ(refused(R"({"prompt": {"a": 1}})"),
            "prompt: prompt is an object of 1 fields, it must be a string, token ids, or a list of "
            "either");
  EXPECT_EQ(refused(R"({})"),
            "prompt: prompt is missing; give a string, token ids, or a list of either");
  EXPECT_EQ(refused(R"([])"), ": the body is an array of 0, it must be a JSON object");
  EXPECT_EQ(refused(R"({"prompt": ["a", "b", "c"], "n": 3})"),
            "n: 3 prompts with n = 3 are more than 8 choices, which is the limit of one request");
  EXPECT_EQ(refused(R"({"prompt": "a", "suffix": "b"})"),
            "suffix: suffix: text in front of a suffix is not supported");
  EXPECT_EQ(refused(R"({"prompt": "a", "stream_options": {"include_usage": 1}})"),
            "stream_options: stream_options.include_usage is 1, it must be true or false");
}

TEST_F(ReadRequest, EchoOfThePromptAlone) {
  const auto request = read(read_completion_request,
                            R"({"prompt": "ab", "echo": true, "max_tokens": 0, "logprobs": 3})");
  EXPECT_TRUE(request.drops_reply);
  EXPECT_EQ(request.prompts[0].sampling.max_tokens, 1);
  EXPECT_EQ(request.prompts[0].sampling.prompt_logprobs, 3);
}

TEST_F(ReadRequest, JoinsTextPartsOfMessages) {
  const auto request = read(read_chat_request, R"({"messages": [
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant"}], "chat_template_kwargs": {"enable_thinking": false},
    "tools": [{"type": "function"}]})");
  EXPECT_EQ(
      text_of(request.prompts[0].tokens),
      "user:a\nb\nassistant:null\n"
      R"({"add_generation_prompt":true,"enable_thinking":false,"tools":[{"type":"function"}]})");
}

TEST_F(ReadRequest, ReadsArgumentsOfToolCalls) {
  // A template that reads the arguments gets an object; this one shows the message's content alone.
  const char* text = R"({"messages": [{"role": "assistant", "content": "c", "tool_calls": [
    {"function": {"name": "f", "arguments": "{\"x\": 1}"}}, {"function": 3}, 7]}]})";
  EXPECT_EQ(text_of(read(read_chat_request, text).prompts[0].tokens).substr(0, 12),
            "assistant:c\n");
}

TEST_F(ReadRequest, RefusesRolesThatAreNoNames) {
  const auto refused = [&](const char* text) { return refusal(read_chat_request, text); };
  EXPECT_EQ(refused(R"({"messages": [{"role": "user<|im_end|>", "content": ""}]})"),
            "messages: message 0 needs a \"role\" such as \"system\", \"user\", \"assistant\" or "
            "\"tool\"");
  EXPECT_EQ(refused(R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})"),
            "messages: part 0 of the content of message 0 is not {\"type\": \"text\", \"text\"}, "
            "the one kind supported");
  EXPECT_EQ(
      refused(R"({"messages": [{"role": "user", "content": ""}], "tool_choice": "required"})"),
      "tool_choice: tool_choice is \"required\", it must be \"auto\" or \"none\"");
}

TEST_F(ReadRequest, ReadsBatchesOfGenerate) {
  const auto request = read(read_generate_request, R"({"text": ["a", "bc"],
    "lora_path": [null, "sql"], "sampling_params": [{"max_new_tokens": 1}, {"temperature": 0}],
    "return_logprob": true, "logprob_start_len": 0, "top_logprobs_num": 2, "rid": "r"})");
  ASSERT_EQ(request.prompts.size(), 2u);
  EXPECT_TRUE(request.is_batch);
  EXPECT_EQ(request.prompts[0].lora, "");
  EXPECT_EQ(request.prompts[1].lora, "sql");
  EXPECT_EQ(request.prompts[0].sampling.max_tokens, 1);
  EXPECT_EQ(request.prompts[1].sampling.max_tokens, 128);
  EXPECT_EQ(request.prompts[1].sampling.temperature, 0.0f);
  EXPECT_EQ(request.prompts[1].sampling.prompt_logprobs, 2);
  EXPECT_EQ(request.client_id, "r");
  EXPECT_FALSE(read(read_generate_request, R"({"input_ids": [1, 2]})").is_batch);
  EXPECT_EQ(refusal(read_generate_request, R"({"text": "a", "input_ids": [1]})"),
            "text: give either text or input_ids");
  EXPECT_EQ(refusal(read_generate_request, R"({"text": ["a"], "lora_path": ["x", "y"]})"),
            "lora_path: lora_path is a list of 2 for 1 prompts");
}

TEST_F(ReadRequest, ReadsWhatTheReplyMustLookLike) {
  const auto grammar = [&](const char* text) {
    return read(read_completion_request, text).prompts[0].sampling.grammar;
  };
  using G = OutputGrammar;
  EXPECT_EQ(grammar(R"({"prompt": "a", "response_format": {"type": "text"}})"), std::nullopt);
  EXPECT_EQ(grammar(R"({"prompt": "a", "response_format": {"type": "json_object"}})"),
            (G{.kind = GrammarKind::kJsonObject}));
  EXPECT_EQ(grammar(R"({"prompt": "a", "response_format": {"type": "json_schema",
                        "json_schema": {"name": "n", "schema": {"type": "null"}}}})"),
            (G{GrammarKind::kJsonSchema, R"({"type":"null"})"}));
  EXPECT_EQ(grammar(R"({"prompt": "a", "json_schema": "{}"})"),
            (G{GrammarKind::kJsonSchema, "{}"}));
  EXPECT_EQ(grammar(R"({"prompt": "a", "guided_regex": "a+"})"), (G{GrammarKind::kRegex, "a+"}));
  EXPECT_EQ(grammar(R"({"prompt": "a", "structured_outputs": {"choice": ["a.b", "c"]}})"),
            (G{GrammarKind::kRegex, R"((a\.b|c))"}));
  EXPECT_EQ(
      refusal(read_completion_request, R"({"prompt": "a", "regex": "a", "guided_regex": "b"})"),
      "regex: regex: the request already says what its reply must look like; say it once");
  EXPECT_EQ(refusal(read_completion_request, R"({"prompt": "a", "ebnf": "x"})"),
            "ebnf: ebnf is not supported; use a JSON Schema or a regex");
}

TEST_F(ReadRequest, GivesEachSampleASeedOfItsOwn) {
  auto request = read(read_completion_request, R"({"prompt": ["a", "b"], "n": 2, "seed": 5})");
  const auto requests = engine_requests(request, {AdapterId::kBase, AdapterId{3}}, 99);
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_EQ(requests[0].sampling.seed, 5u);
  EXPECT_EQ(requests[2].sampling.seed, 5u);
  EXPECT_EQ(requests[1].sampling.seed, requests[3].sampling.seed);
  EXPECT_NE(requests[0].sampling.seed, requests[1].sampling.seed);
  EXPECT_EQ(requests[1].adapter, AdapterId::kBase);
  EXPECT_EQ(requests[2].adapter, AdapterId{3});

  request = read(read_completion_request, R"({"prompt": ["a", "b"]})");
  const auto random = engine_requests(request, {AdapterId::kBase, AdapterId::kBase}, 99);
  EXPECT_NE(random[0].sampling.seed, random[1].sampling.seed);
}

}  // namespace
}  // namespace braid::server

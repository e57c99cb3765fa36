// braid generate, on a golden model without and with a tokenizer.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "tests/apps/run_program.h"

namespace braid::test {
namespace {

using testing::HasSubstr;
using testing::Not;

// `generate` on the golden model with these lines as --input.
ProgramResult generate_lines(const std::string& lines, std::vector<std::string> options = {}) {
  std::vector<std::string> arguments = {"generate", golden_model(), "--input", "-",
                                        "--json",   "--threads",    "1"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return run_braid(arguments, {.in = lines});
}

class TextModel : public testing::Test {
 protected:
  TextModel() { make_text_model(folder_); }

  ProgramResult generate(std::vector<std::string> options, const std::string& in = {}) {
    std::vector<std::string> arguments = {
        "generate", folder_.path().string(), "--max-tokens", "8", "--threads", "1"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return run_braid(arguments, {.in = in});
  }

  TemporaryFolder folder_;
};

TEST(Generate, AnswersMoreLinesThanTheQueueHoldsAndGoesOnAfterARefusal) {
  std::string lines;
  for (int i = 0; i < 1500; ++i) {
    lines += i == 700 ? Json({{"prompt", std::vector<int>(300, 5)}}).dump()
                      : Json({{"prompt", {1, 2, 3 + i % 250}}, {"max_tokens", 2}}).dump();
    lines += "\n";
  }
  const auto result = generate_lines(lines, {"--temperature", "0"});
  EXPECT_EQ(result.status, 1);
  const auto answers = json_lines(result.out);
  ASSERT_EQ(answers.size(), 1500u);
  for (size_t i = 0; i < answers.size(); ++i) {
    if (i == 700) continue;
    ASSERT_FALSE(answers[i].contains("error")) << answers[i];
    ASSERT_EQ(answers[i]["prompt"][2], 3 + i % 250);
    ASSERT_EQ(answers[i]["tokens"], answers[i < 250 ? i : i % 250]["tokens"]);
  }
  EXPECT_EQ(answers[700]["finish_reason"], "error");
  EXPECT_EQ(answers[700]["error"],
            "stdin:701: a prompt of 300 tokens and max_tokens 128 make 428, the context is 256 "
            "tokens");
  EXPECT_THAT(result.err, HasSubstr("1 failed, the first: stdin:701: a prompt of 300"));
}

TEST(Generate, StopsBeforeItStartsAtALineThatIsWrong) {
  const std::string good = R"({"prompt": [1], "max_tokens": 1})"
                           "\n";
  const auto expect = [&](const std::string& line, const std::string& message) {
    const auto result = generate_lines(good + line + "\n");
    EXPECT_EQ(result.status, 1) << line;
    EXPECT_EQ(result.out, "") << line;
    EXPECT_THAT(result.err, HasSubstr("stdin:2: " + message));
    EXPECT_THAT(result.err, Not(HasSubstr("load model"))) << line;
  };
  expect(R"({"prompt": [1], "max_tokens": 4294967299})", "max_tokens is 4294967299, accepted is");
  expect(R"({"prompt": [1], "max_tokens": 2.9})", "max_tokens is 2.9, accepted is");
  expect(R"({"prompt": [1], "temperature": true})", "temperature is true, accepted is a number");
  expect(R"({"prompt": [1], "top_p": 7})", "top_p is 7, accepted is");
  expect(R"({"prompt": [1], "temprature": 1})", "unknown key \"temprature\"");
  expect(R"({"prompt": [1], "adapter": "x"})", "there is no adapter \"x\"");
  expect("{", "not valid JSON");
}

TEST(Generate, MixesAdaptersAndBaseInOneBatch) {
  const auto result = generate_lines(R"({"prompt": [1, 2, 3]}
{"prompt": [1, 2, 3], "adapter": "a"}
{"prompt": [1, 2, 3], "adapter": "base"})",
                                     {"--lora", "a=" + golden_adapter("per_expert_f32"),
                                      "--temperature", "0", "--max-tokens", "16"});
  ASSERT_EQ(result.status, 0) << result.err;
  const auto answers = json_lines(result.out);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[1]["adapter"], "a");
  EXPECT_TRUE(answers[2]["adapter"].is_null());
  EXPECT_EQ(answers[0]["tokens"], answers[2]["tokens"]);
  EXPECT_NE(answers[0]["tokens"], answers[1]["tokens"]);
}

TEST(Generate, RoundsActivationsOnACpuWhereItIsAskedTo) {
  const auto logprobs = [](const std::string& dtype) {
    const auto result = generate_lines("{\"prompt\": [1, 2, 3], \"max_tokens\": 8}\n",
                                       {"--device", "cpu", "--dtype", dtype, "--logprobs", "2"});
    EXPECT_EQ(result.status, 0) << result.err;
    return json_lines(result.out).at(0)["logprobs"];
  };
  EXPECT_EQ(logprobs("auto"), logprobs("float32"));
  EXPECT_NE(logprobs("auto"), logprobs("bfloat16"));
  const auto on_gpu = generate_lines("", {"--device", "cuda", "--dtype", "float32"});
  EXPECT_EQ(on_gpu.status, 1);
  EXPECT_THAT(on_gpu.err, HasSubstr("activation_dtype is float32, on a GPU it is bfloat16"));
}

TEST(Generate, RefusesTheNameBaseAndAdaptersThatAreNotThere) {
  const auto base =
      generate_lines(R"({"prompt": [1]})", {"--lora", "base=" + golden_adapter("tinker")});
  EXPECT_EQ(base.status, 1);
  EXPECT_THAT(base.err, HasSubstr("the name \"base\""));
  const auto missing = generate_lines(R"({"prompt": [1]})", {"--lora", "a=/not/there"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.err, HasSubstr("/not/there"));
  EXPECT_THAT(missing.err, Not(HasSubstr("load model")));  // found before the model is loaded
}

TEST(Generate, RefusesOptionsThatNothingWouldUse) {
  const auto expect = [](const std::vector<std::string>& options, const std::string& message) {
    std::vector<std::string> arguments = {"generate", golden_model()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const auto result = run_braid(arguments);
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, HasSubstr(message));
  };
  expect({}, "nothing to do");
  expect({"--input", "x", "--adapter", "base"}, "--adapter goes with");
  expect({"--prompt", "x", "--system", "y"}, "--system goes with --chat");
  expect({"--prompt", "x", "--chat-template-kwargs", "{\"a\": 1}"}, "--chat-template-kwargs goes");
}

TEST(Generate, SaysThatAModelHasNoTokenizer) {
  const auto result = run_braid({"generate", golden_model(), "--prompt", "x"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("no tokenizer in this folder"));
}

TEST(Generate, NeverSaysDoneOfAModelThatDidNotLoad) {
  const TemporaryFolder folder;
  folder.write("config.json", read_file(golden_model() + "/config.json", 1 << 20).value());
  folder.write("model.safetensors", "not a checkpoint");
  const auto result =
      run_braid({"generate", folder.path().string(), "--input", "-"}, {.in = "{\"prompt\": [1]}"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, Not(HasSubstr("done")));
  EXPECT_THAT(result.err, Not(HasSubstr("100 %")));
}

TEST_F(TextModel, PrintsOneAnswerAsTextAndManyUnderTheirNames) {
  const auto one = generate({"--prompt", "abc"});
  ASSERT_EQ(one.status, 0) << one.err;
  EXPECT_FALSE(one.out.empty());
  EXPECT_THAT(one.out, Not(HasSubstr("[base]")));
  EXPECT_THAT(one.err, HasSubstr("1 request, 3 prompt tokens"));
  const auto two = generate({"--prompt", "abc", "--lora", "a=" + golden_adapter("per_expert_f32"),
                             "--adapter", "base", "--adapter", "a"});
  ASSERT_EQ(two.status, 0) << two.err;
  EXPECT_EQ(two.out.find("abc\n[base]\n"), 0u) << two.out;
  EXPECT_THAT(two.out, HasSubstr("\n[a]\n"));
}

TEST_F(TextModel, TakesTheModelsDefaultsAndEveryKindOfSamplingOption) {
  // The model's generation_config.json says temperature 0: two seeds draw the same.
  const auto first = generate({"--prompt", "abc", "--seed", "1"});
  EXPECT_EQ(first.out, generate({"--prompt", "abc", "--seed", "2"}).out);
  EXPECT_NE(generate({"--prompt", "abc", "--temperature", "3", "--seed", "1"}).out,
            generate({"--prompt", "abc", "--temperature", "3", "--seed", "2"}).out);
  // A min_p of 1 leaves the most likely token alone, given here or by the model.
  EXPECT_EQ(generate({"--prompt", "abc", "--temperature", "3", "--min-p", "1"}).out, first.out);
  folder_.write("generation_config.json", R"({"temperature": 3.0, "min_p": 1.0})");
  EXPECT_EQ(generate({"--prompt", "abc", "--seed", "1"}).out, first.out);

  const auto biased = generate(
      {"--prompt", "abc", "--temperature", "0", "--logit-bias", "36=100,37=-100", "--json"});
  ASSERT_EQ(biased.status, 0) << biased.err;
  EXPECT_EQ(json_lines(biased.out)[0]["text"], "AAAAAAAA");
  const auto stopped =
      generate({"--prompt", "abc", "--logit-bias", "36=100", "--stop-token-ids", "5,36", "--json"});
  EXPECT_EQ(json_lines(stopped.out)[0]["tokens"], Json({36}));
  const auto before = generate({"--prompt", "abc", "--logit-bias", "36=100", "--stop", "AAA"});
  EXPECT_EQ(before.out, "\n");
}

TEST_F(TextModel, PrintsLogprobsAsATableOrAsJson) {
  const auto table = generate(
      {"--prompt", "ab", "--logit-bias", "36=100", "--logprobs", "2", "--prompt-logprobs", "0"});
  ASSERT_EQ(table.status, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("of the prompt"));
  EXPECT_THAT(table.out, HasSubstr("of the reply"));
  EXPECT_THAT(table.out, HasSubstr("36  \"A\" "));
  const auto json =
      generate({"--prompt", "ab", "--logprobs", "2", "--prompt-logprobs", "0", "--json"});
  const Json answer = json_lines(json.out)[0];
  EXPECT_EQ(answer["logprobs"].size(), answer["tokens"].size());
  EXPECT_EQ(answer["logprobs"][0]["top"].size(), 2u);
  EXPECT_EQ(answer["prompt_logprobs"].size(), 1u);
}

TEST_F(TextModel, HandsVariablesToTheChatTemplate) {
  const auto prompt_tokens = [&](const std::vector<std::string>& options, const std::string& in) {
    auto all = options;
    all.emplace_back("--json");
    const auto result = generate(all, in);
    EXPECT_EQ(result.status, 0) << result.err;
    return json_lines(result.out)[0]["usage"]["prompt_tokens"].get<int>();
  };
  const int plain = prompt_tokens({"--chat", "hi"}, "");  // "user: hi<end>"
  EXPECT_EQ(plain, 9);
  const std::string kwargs = R"({"enable_thinking": true, "tools": [{"type": "function"}]})";
  EXPECT_EQ(prompt_tokens({"--chat", "hi", "--chat-template-kwargs", kwargs}, ""), plain + 16);
  EXPECT_EQ(prompt_tokens({"--chat", "hi", "--system", "x"}, ""), plain + 10);
  // A line's own variables go before those of the command line.
  const std::string line =
      R"({"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": )";
  EXPECT_EQ(prompt_tokens({"--input", "-"}, line + R"({"enable_thinking": true}})"), plain + 7);
  EXPECT_EQ(prompt_tokens({"--input", "-", "--chat-template-kwargs", kwargs},
                          line + R"({"enable_thinking": false}})"),
            plain + 9);
  const auto wrong = generate({"--chat", "hi", "--chat-template-kwargs", "[]"});
  EXPECT_EQ(wrong.status, 1);
  EXPECT_THAT(wrong.err, HasSubstr("accepted is an object"));
}

TEST_F(TextModel, RefusesTextThatIsNotUtf8) {
  for (const char* option : {"--prompt", "--chat"}) {
    const auto result = generate({option, "a\xff"});
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, HasSubstr("is not UTF-8"));
  }
}

}  // namespace
}  // namespace braid::test

#include <gtest/gtest.h>

#include <cmath>

#include "apps/text_windows.h"
#include "base/json.h"
#include "tests/apps/run_program.h"

namespace braid::test {
namespace {

using apps::text_windows;

TEST(TextWindows, ScoreEveryTokenButTheFirstOnce) {
  for (const auto& [num_tokens, window, stride] :
       {std::tuple{2, 2, 1}, {7, 8, 3}, {8, 8, 3}, {9, 8, 3}, {100, 8, 7}, {100, 16, 1}}) {
    auto windows = text_windows(num_tokens, window, stride);
    ASSERT_TRUE(windows);
    std::vector<int> scored(static_cast<size_t>(num_tokens));
    for (const apps::TextWindow& w : *windows) {
      EXPECT_LE(w.end - w.begin, window);
      EXPECT_GE(w.first_scored, w.begin + 1);
      if (w.begin > 0) {
        EXPECT_GE(w.first_scored - w.begin, window - stride);
      }
      for (int64_t t = w.first_scored; t < w.end; ++t) ++scored[static_cast<size_t>(t)];
    }
    EXPECT_EQ(scored[0], 0);
    for (size_t t = 1; t < scored.size(); ++t) EXPECT_EQ(scored[t], 1) << t;
  }
}

TEST(TextWindows, SayWhatTheyNeed) {
  EXPECT_EQ(text_windows(1, 8, 4).error().message,
            "the text has 1 token(s), need 2: a token is scored by what stands before it");
  EXPECT_EQ(text_windows(9, 1, 1).error().message, "--window 1, need at least 2");
  EXPECT_EQ(text_windows(9, 8, 8).error().message, "--stride 8, need 1 to 7, below --window");
  EXPECT_EQ(text_windows(9, 8, 0).error().message, "--stride 0, need 1 to 7, below --window");
}

TEST(TextScore, IsThatOfAFairDie) {
  apps::TextScore score;
  for (int i = 0; i < 10; ++i) score.add(-std::log(6.0f));
  EXPECT_EQ(score.num_tokens(), 10);
  EXPECT_NEAR(score.perplexity(), 6, 1e-5);
  EXPECT_NEAR(score.standard_error(), 0, 1e-3);
  score.add(-std::log(2.0f));
  EXPECT_LT(score.perplexity(), 6);
  EXPECT_GT(score.standard_error(), 0);
}

std::string long_text() {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "The quick brown fox, " + std::to_string(i) + ". ";
  return text;
}

// A text in one window is what `generate` says of it as a prompt.
TEST(Perplexity, IsThatOfThePromptLogprobs) {
  const TemporaryFolder folder;
  make_text_model(folder);
  const std::string text = folder.write("text.txt", "Hello, perplexed world"),
                    json = (folder.path() / "out.json").string();
  const auto scored = run_braid(
      {"perplexity", folder.path().string(), "--text", text, "--device", "cpu", "--json", json});
  ASSERT_EQ(scored.status, 0) << scored.err;
  const auto generated =
      run_braid({"generate", folder.path().string(), "--prompt", "Hello, perplexed world",
                 "--prompt-logprobs", "0", "--max-tokens", "1", "--device", "cpu", "--json"});
  ASSERT_EQ(generated.status, 0) << generated.err;
  const Json answer = json_lines(generated.out).front();
  double sum = 0;
  for (const Json& entry : answer["prompt_logprobs"]) sum += entry["logprob"].get<double>();
  auto written = read_json_file(json);
  ASSERT_TRUE(written);
  const Json& row = (*written)["rows"].at(0);
  EXPECT_EQ(row["name"], "base");
  EXPECT_EQ(row["tokens"], answer["prompt_logprobs"].size());
  EXPECT_NEAR(row["mean_logprob"].get<double>(),
              sum / static_cast<double>(answer["prompt_logprobs"].size()), 1e-6);
  EXPECT_NE(scored.out.find("perplexity"), std::string::npos);
}

TEST(Perplexity, ScoresAdaptersBesideTheBase) {
  const TemporaryFolder folder;
  make_text_model(folder);
  const std::string text = folder.write("text.txt", long_text()),
                    json = (folder.path() / "out.json").string();
  const auto scored = run_braid(
      {"perplexity", folder.path().string(), "--text", text, "--window", "32", "--stride", "20",
       "--lora", "a=" + golden_adapter("per_expert_f32"), "--device", "cpu", "--json", json});
  ASSERT_EQ(scored.status, 0) << scored.err;
  auto written = read_json_file(json);
  ASSERT_TRUE(written);
  ASSERT_EQ((*written)["rows"].size(), 2u);
  const Json &base = (*written)["rows"][0], &adapted = (*written)["rows"][1];
  EXPECT_EQ(base["tokens"], long_text().size() - 1);
  EXPECT_EQ(adapted["tokens"], base["tokens"]);
  EXPECT_EQ(adapted["name"], "a");
  EXPECT_NE(adapted["perplexity"], base["perplexity"]);
}

TEST(Perplexity, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  make_text_model(folder);
  const std::string model = folder.path().string();
  const std::string text = folder.write("text.txt", "x");
  EXPECT_EQ(run_braid({"perplexity", model}).status, 2);
  const auto stride = run_braid({"perplexity", model, "--text", text, "--stride", "512"});
  EXPECT_EQ(stride.status, 2);
  EXPECT_EQ(stride.err, "braid: --stride 512, need 1 to 511, below --window\n");
  const auto missing = run_braid({"perplexity", model, "--text", model + "/none.txt"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_NE(missing.err.find("none.txt"), std::string::npos);
  const auto tiny = run_braid({"perplexity", model, "--text", text, "--device", "cpu"});
  EXPECT_EQ(tiny.status, 1);
  EXPECT_NE(tiny.err.find("need 2: a token is scored"), std::string::npos) << tiny.err;
}

}  // namespace
}  // namespace braid::test

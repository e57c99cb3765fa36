// The shipped adapters on the demo model, base and all adapters mixed in one engine, against the
// answers of transformers and peft.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "base/json.h"
#include "braid/engine.h"

namespace braid::test {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPromptsEach = 8;

struct Answer {
  std::string adapter;  // empty: the base model
  std::string prompt;
  std::string want;
  std::string got;
};

std::vector<Answer> expected_answers(const Json& expected) {
  std::vector<Answer> answers;
  const auto add = [&](const std::string& adapter, const Json& lines) {
    for (size_t i = 0; i < kPromptsEach; ++i) {
      answers.push_back({.adapter = adapter,
                         .prompt = lines.at(i).at("prompt").get<std::string>(),
                         .want = lines.at(i).at("text").get<std::string>()});
    }
  };
  add("", expected.at("base"));
  for (const auto& [name, adapter] : expected.at("adapters").items()) {
    add(name, adapter.at("answers"));
  }
  return answers;
}

TEST(DemoAdapters, AnswerAsUnderTransformersAndPeft) {
  const char* named = std::getenv("BRAID_DEMO_MODEL");
  const fs::path root = BRAID_SOURCE_DIR;
  const fs::path folder = named != nullptr ? fs::path(named) : root / "build/demo/smollm2-moe";
  if (!fs::exists(folder / "config.json")) {
    GTEST_SKIP() << folder.string() << " is not there; tools/demo/make_model.py makes it";
  }
  const Json expected =
      read_json_file(fs::path(BRAID_TEST_DATA_DIR) / "demo/expected_effect.json").value();
  std::vector<Answer> answers = expected_answers(expected);
  std::mutex mutex;
  auto opened = Engine::open({.model_dir = folder});
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  Engine& engine = **opened;
  std::map<std::string, AdapterId> ids = {{"", AdapterId::kBase}};
  for (const auto& [name, adapter] : expected.at("adapters").items()) {
    const auto id = engine.add_adapter(name, root / "models/adapters" / name);
    ASSERT_TRUE(id.has_value()) << id.error().message;
    ids[name] = *id;
  }

  for (Answer& answer : answers) {
    const Json messages = {{{"role", "user"}, {"content", answer.prompt}}};
    const auto prompt = engine.apply_chat_template(messages.dump());
    ASSERT_TRUE(prompt.has_value()) << prompt.error().message;
    const Request request = {
        .prompt = *prompt,
        .adapter = ids.at(answer.adapter),
        .sampling = {.temperature = 0, .max_tokens = expected.at("max_tokens").get<int32_t>()}};
    const auto id = engine.submit(request, [&](const TokenEvent& event) {
      const std::lock_guard lock(mutex);
      answer.got += event.text;
    });
    ASSERT_TRUE(id.has_value()) << id.error().message;
  }
  engine.wait_until_idle();

  size_t num_equal = 0;
  for (const Answer& answer : answers) {
    num_equal += answer.got == answer.want;
    if (answer.got != answer.want) {
      std::printf("%s | %s\n  want %s\n  got  %s\n", answer.adapter.c_str(), answer.prompt.c_str(),
                  answer.want.c_str(), answer.got.c_str());
    }
    if (answer.adapter.empty()) continue;
    // What a person sees of the adapter, wherever it was seen there.
    const Json& shows = expected.at("adapters").at(answer.adapter).at("shows");
    const auto shown = [&](const std::string& text) {
      return text.starts_with(shows.at("starts_with").get<std::string>()) &&
             text.ends_with(shows.at("ends_with").get<std::string>());
    };
    EXPECT_EQ(shown(answer.got), shown(answer.want)) << answer.adapter << ": " << answer.got;
  }
  std::printf("%zu of %zu answers are equal\n", num_equal, answers.size());
  // Near-ties of the two best tokens may fall either way in another order of summation.
  EXPECT_GE(num_equal * 20, answers.size() * 19);
}

}  // namespace
}  // namespace braid::test

// ChatTemplate against jinja2 as transformers sets it up: models' own templates on many
// conversations, and single rules of Jinja.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "text/chat_template.h"

namespace braid::text {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;  // the goldens are ours and small

fs::path goldens() { return fs::path(BRAID_TEST_DATA_DIR) / "chat_template"; }

OrderedJson read(const fs::path& path) {
  std::ifstream in(path);
  return OrderedJson::parse(in);
}

std::tm time_of(const OrderedJson& golden) {
  std::tm now = {};
  const std::string text = golden.at("now").get<std::string>();
  EXPECT_NE(strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &now), nullptr) << text;
  return now;
}

void check(const Result<MarkedText>& got, const OrderedJson& one) {
  const std::string name = one.at("name").get<std::string>();
  if (!one.contains("error")) {
    ASSERT_TRUE(got.has_value()) << name << ": " << got.error().message;
    EXPECT_EQ(got->text(), one.at("expected").get<std::string>()) << name;
    return;
  }
  const std::string error = one.at("error").get<std::string>();
  ASSERT_FALSE(got.has_value()) << name << " has to fail with " << error << ", gave "
                                << got->text();
  if (one.value("raised", false)) {
    EXPECT_TRUE(got.error().message.ends_with(error)) << name << ": " << got.error().message;
  }
}

class ChatTemplateGolden : public testing::TestWithParam<std::string> {};

TEST_P(ChatTemplateGolden, RendersAsJinja2) {
  const OrderedJson golden = read(goldens() / (GetParam() + ".json"));
  const auto parsed = ChatTemplate::parse(golden.at("template").get<std::string>());
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  ASSERT_GT(golden.at("cases").size(), 50u);
  for (const OrderedJson& one : golden.at("cases")) {
    OrderedJson options = one.at("kwargs");
    // The goldens leave out what transformers always sets.
    if (!options.contains("add_generation_prompt")) options["add_generation_prompt"] = false;
    options["tools"] = one.at("tools");
    const std::string messages = one.at("messages").dump(), options_text = options.dump();
    check(parsed->render({.messages = messages, .options = options_text, .now = time_of(golden)}),
          one);
  }
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(goldens())) {
    if (entry.path().stem() != "semantics") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Models, ChatTemplateGolden, testing::ValuesIn(golden_names()),
                         [](const auto& one) {
                           std::string name = one.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(ChatTemplateSemantics, AreThoseOfJinja2) {
  const OrderedJson golden = read(goldens() / "semantics.json");
  const std::string options = golden.at("context").dump();
  for (const OrderedJson& one : golden.at("cases")) {
    const auto parsed = ChatTemplate::parse(one.at("template").get<std::string>());
    if (!parsed) {
      check(tl::unexpected(parsed.error()), one);
      continue;
    }
    check(parsed->render({.messages = "[]", .options = options, .now = time_of(golden)}), one);
  }
}

}  // namespace
}  // namespace braid::text

// GenerationConfig: what it reads from the two files, and what it refuses.

#include "text/generation_config.h"

#include <gtest/gtest.h>

#include <ostream>

#include "base/json.h"

namespace braid::text {
namespace {

using Ids = std::vector<int32_t>;

// As files are read: numbers written here are signed, those of a file are not.
Result<GenerationConfig> read(const Json& generation, const Json& model = nullptr) {
  return GenerationConfig::from_json(Json::parse(generation.dump()), Json::parse(model.dump()));
}

struct WrongField {
  std::string name;
  Json generation;
  std::string message;
  Json model = nullptr;

  friend void PrintTo(const WrongField& wrong, std::ostream* out) { *out << wrong.name; }
};

std::vector<WrongField> wrong_fields() {
  const std::string file = "generation_config.json: ";
  const std::string id = ", need a token id or an array of them";
  const auto number = [&](const std::string& name, const std::string& key, const Json& value,
                          const std::string& range) {
    return WrongField{name,
                      {{key, value}},
                      file + "\"" + key + "\" is " + value.dump() + ", need a number in " + range};
  };
  const auto end = [&](const std::string& name, const Json& value) {
    return WrongField{
        name, {{"eos_token_id", value}}, file + "\"eos_token_id\" is " + value.dump() + id};
  };
  const auto top_k = [&](const std::string& name, const Json& value) {
    return WrongField{name,
                      {{"top_k", value}},
                      file + "\"top_k\" is " + value.dump() + ", need an integer of at least 0"};
  };
  return {
      number("TemperatureBelowZero", "temperature", -0.1, "[0, 1000000]"),
      number("TemperatureHuge", "temperature", 1e7, "[0, 1000000]"),
      number("TemperatureText", "temperature", "0.7", "[0, 1000000]"),
      number("TemperatureList", "temperature", {0.7}, "[0, 1000000]"),
      number("TopPZero", "top_p", 0, "(0, 1]"),
      number("TopPOverOne", "top_p", 1.5, "(0, 1]"),
      number("TopPBool", "top_p", true, "(0, 1]"),
      number("MinPBelowZero", "min_p", -1, "[0, 1]"),
      number("MinPOverOne", "min_p", 2, "[0, 1]"),
      number("PenaltyZero", "repetition_penalty", 0.0, "(0, 1000000]"),
      number("PenaltyBelowZero", "repetition_penalty", -1, "(0, 1000000]"),
      top_k("TopKBelowZero", -1),
      top_k("TopKFraction", 2.5),
      top_k("TopKText", "20"),
      top_k("TopKHuge", 5'000'000'000),
      {"SampleText",
       {{"do_sample", "yes"}},
       file + "\"do_sample\" is of type string, need true or false"},
      {"SampleNumber",
       {{"do_sample", 0}},
       file + "\"do_sample\" is of type number, need true or false"},
      end("EndBelowZero", -1),
      end("EndFraction", 2.0),
      end("EndText", "2"),
      end("EndHuge", 2'147'483'648),
      end("EndInAList", {2, "3"}),
      end("EndNested", Json::array({Json::array({2})})),
      {"BeginText", {{"bos_token_id", "1"}}, file + "\"bos_token_id\" is \"1\"" + id},
      {"EndOfTheModel",
       nullptr,
       "config.json: \"eos_token_id\" is {\"id\":2}" + id,
       {{"eos_token_id", {{"id", 2}}}}},
      {"EndOfTheTextModel",
       Json::object(),
       "config.json: \"eos_token_id\" is -2" + id,
       {{"text_config", {{"eos_token_id", -2}}}}},
  };
}

class WrongGenerationConfig : public testing::TestWithParam<WrongField> {};

TEST_P(WrongGenerationConfig, IsRefusedByFieldAndValue) {
  const auto got = read(GetParam().generation, GetParam().model);
  ASSERT_FALSE(got.has_value());
  EXPECT_EQ(got.error().message, GetParam().message);
  EXPECT_EQ(got.error().code, ErrorCode::kCorrupt);
}

INSTANTIATE_TEST_SUITE_P(Fields, WrongGenerationConfig, testing::ValuesIn(wrong_fields()),
                         [](const auto& wrong) { return wrong.param.name; });

TEST(GenerationConfig, ReadsWhatIsThere) {
  const auto got = read({{"temperature", 0.6},
                         {"top_k", 20},
                         {"top_p", 0.95},
                         {"min_p", 0},
                         {"repetition_penalty", 1},
                         {"do_sample", true},
                         {"eos_token_id", {9, 2, 9}},
                         {"bos_token_id", 1}},
                        {{"eos_token_id", 7}, {"bos_token_id", 8}});
  ASSERT_TRUE(got.has_value()) << got.error().message;
  EXPECT_EQ(got->temperature, 0.6f);
  EXPECT_EQ(got->top_k, 20);
  EXPECT_EQ(got->top_p, 0.95f);
  EXPECT_EQ(got->min_p, 0.0f);
  EXPECT_EQ(got->repetition_penalty, 1.0f);
  EXPECT_EQ(got->eos_token_ids, (Ids{2, 9}));
  EXPECT_EQ(got->bos_token_id, 1);
}

TEST(GenerationConfig, LeavesEmptyWhatIsNot) {
  for (const Json& generation :
       {Json(nullptr), Json::object(), Json{{"temperature", nullptr}, {"eos_token_id", nullptr}}}) {
    const auto got = read(generation);
    ASSERT_TRUE(got.has_value()) << got.error().message;
    EXPECT_EQ(got->temperature, std::nullopt);
    EXPECT_EQ(got->top_k, std::nullopt);
    EXPECT_EQ(got->bos_token_id, std::nullopt);
    EXPECT_EQ(got->eos_token_ids, Ids());
  }
}

TEST(GenerationConfig, TakesEndTokensFromTheModel) {
  const auto ends = [](const Json& generation, const Json& model) {
    return read(generation, model).value().eos_token_ids;
  };
  const Json model = {{"eos_token_id", {3, 4}}, {"text_config", {{"eos_token_id", 5}}}};
  EXPECT_EQ(ends(nullptr, model), (Ids{3, 4}));
  EXPECT_EQ(ends({{"eos_token_id", 2}}, model), (Ids{2}));
  EXPECT_EQ(ends(nullptr, {{"text_config", {{"eos_token_id", 5}}}}), (Ids{5}));
}

TEST(GenerationConfig, IsGreedyWithoutSampling) {
  EXPECT_EQ(read({{"do_sample", false}, {"temperature", 0.6}}).value().temperature, 0.0f);
}

}  // namespace
}  // namespace braid::text

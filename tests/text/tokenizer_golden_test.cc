// Tokenizer and Detokenizer against HF tokenizers and tiktoken, on vocabularies of real models.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "tests/text/golden_files.h"
#include "text/detokenizer.h"
#include "text/tiktoken.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace braid::text {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<const Tokenizer> load(const fs::path& folder) {
  Result<std::shared_ptr<const Tokenizer>> tokenizer;
  if (!fs::exists(folder / "tiktoken.json")) {
    tokenizer = Tokenizer::open(folder);
  } else {
    const Json facts = read_json_file(folder / "tiktoken.json").value();
    tokenizer = Tokenizer::from_tiktoken(
        read_file(folder / "tokenizer.tiktoken", size_t{1} << 30).value(),
        facts["pattern"].get<std::string>(),
        facts["special_tokens"].get<std::map<std::string, int32_t>>(), Json());
  }
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  return tokenizer.value_or(nullptr);
}

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = test::tokenizer_goldens() / GetParam();
    if (!fs::exists(folder_)) {
      GTEST_SKIP() << folder_ << " is not there; tools/goldens/make_tokenizers.py makes it";
    }
    tokenizer_ = load(folder_);
    ASSERT_NE(tokenizer_, nullptr);
  }

  // Number of strings whose ids differ; the first few are printed.
  int count_differences(const std::string& name) {
    const auto texts = test::read_texts(test::tokenizer_goldens() / (name + ".text"));
    const auto want = test::read_ids(folder_ / (name + ".ids"));
    EXPECT_EQ(texts.size(), want.size());
    EXPECT_GT(texts.size(), 0u);
    int differences = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto got = tokenizer_->encode(texts[i], {.add_special_tokens = false});
      if (got && *got == want[i]) continue;
      if (++differences > 5) continue;
      if (!got) {
        ADD_FAILURE() << name << " " << i << ": " << got.error().message;
        continue;
      }
      const size_t at = static_cast<size_t>(
          std::mismatch(got->begin(), got->end(), want[i].begin(), want[i].end()).first -
          got->begin());
      const auto around = [&](const std::vector<int32_t>& ids) {
        std::string pieces;
        for (size_t j = at; j < std::min(at + 6, ids.size()); ++j) {
          pieces += "[" + std::string(tokenizer_->piece(ids[j])) + "]";
        }
        return pieces;
      };
      std::cout << name << " " << i << " differs at token " << at << ": got " << around(*got)
                << ", want " << around(want[i]) << "\n";
    }
    return differences;
  }

  // The pieces of a stream joined; each has to be whole characters.
  std::string stream(const std::vector<int32_t>& ids, bool skip_special_tokens) const {
    Detokenizer detokenizer(tokenizer_, {.skip_special_tokens = skip_special_tokens});
    std::string joined;
    const auto add = [&](const std::string& piece) {
      EXPECT_EQ(find_broken_utf8(piece), std::string_view::npos) << "piece after " << joined;
      joined += piece;
    };
    for (const int32_t id : ids) add(detokenizer.push(id));
    add(detokenizer.flush());
    return joined;
  }

  fs::path folder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_P(TokenizerGolden, EncodesCodeAndProse) { EXPECT_EQ(count_differences("corpus"), 0); }

TEST_P(TokenizerGolden, EncodesRandomStrings) { EXPECT_EQ(count_differences("random"), 0); }

// Code points that no Unicode version of the machine assigns: whether they are letters depends on
// the version of the tables, so differences are printed and bounded.
TEST_P(TokenizerGolden, EncodesUnassignedCodePointsMostlyAlike) {
  const auto all = test::read_ids(folder_ / "unassigned.ids").size();
  const int differences = count_differences("unassigned");
  std::cout << differences << " of " << all << " strings differ\n";
  EXPECT_LE(differences, static_cast<int>(all / 10));
}

TEST_P(TokenizerGolden, GivesBackEveryTextItEncodes) {
  const bool normalises = std::string(GetParam()) == "qwen3";
  for (const std::string& text : test::read_texts(test::tokenizer_goldens() / "corpus.text")) {
    const auto ids = tokenizer_->encode(text, {.allow_special = false});
    ASSERT_TRUE(ids.has_value()) << ids.error().message;
    const std::string decoded = tokenizer_->decode(*ids, false);
    if (!normalises) {
      ASSERT_EQ(decoded, text);
    }
    ASSERT_EQ(stream(*ids, /*skip_special_tokens=*/false), decoded);
    for (const int32_t id : *ids) ASSERT_FALSE(tokenizer_->is_special(id));
  }
}

// Only of vocabularies that HF tokenizers decodes: tiktoken gives bytes, not text.
class TokenizerDecodeGolden : public TokenizerGolden {};

TEST_P(TokenizerDecodeGolden, DecodesAsAWholeAndAsAStream) {
  const auto rows = test::read_ids(folder_ / "decode.ids");
  const auto all = test::read_texts(folder_ / "decode_all.text");
  const auto plain = test::read_texts(folder_ / "decode_plain.text");
  ASSERT_EQ(rows.size(), all.size());
  ASSERT_EQ(rows.size(), plain.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(tokenizer_->decode(rows[i], false), all[i]) << "row " << i;
    ASSERT_EQ(tokenizer_->decode(rows[i], true), plain[i]) << "row " << i;
    ASSERT_EQ(stream(rows[i], /*skip_special_tokens=*/false), all[i]) << "row " << i;
    ASSERT_EQ(stream(rows[i], /*skip_special_tokens=*/true), plain[i]) << "row " << i;
  }
}

const auto kVocabulary = [](const auto& one) { return std::string(one.param); };

INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerGolden,
                         testing::Values("smollm2", "qwen3", "deepseek_v3", "qwen_tiktoken",
                                         "kimi_tiktoken"),
                         kVocabulary);
INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerDecodeGolden,
                         testing::Values("smollm2", "qwen3", "deepseek_v3"), kVocabulary);

// The files of a model with tiktoken, whose pattern Braid has to know.
class TiktokenFolderGolden : public TokenizerGolden {};

TEST_P(TiktokenFolderGolden, OpensAsTheModelItIsOf) {
  const bool is_kimi = std::string(GetParam()) == "kimi_tiktoken";
  const Json facts = read_json_file(folder_ / "tiktoken.json").value();
  Json config = {{"tokenizer_class", is_kimi ? "TikTokenTokenizer" : "QWenTokenizer"}};
  EXPECT_EQ(tiktoken_pattern_of(config).value(), facts["pattern"].get<std::string>());
  for (const auto& [content, id] : facts["special_tokens"].items()) {
    config["added_tokens_decoder"][id.dump()] = {{"content", content}, {"special", true}};
  }
  const fs::path model = fs::path(testing::TempDir()) / ("braid_" + std::string(GetParam()));
  fs::remove_all(model);
  fs::create_directories(model);
  fs::create_symlink(folder_ / "tokenizer.tiktoken",
                     model / (is_kimi ? "tiktoken.model" : "qwen.tiktoken"));
  ASSERT_TRUE(write_file(model / "tokenizer_config.json", config.dump()));
  tokenizer_ = load(model);
  fs::remove_all(model);
  ASSERT_NE(tokenizer_, nullptr);
  EXPECT_EQ(count_differences("random"), 0);
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, TiktokenFolderGolden,
                         testing::Values("qwen_tiktoken", "kimi_tiktoken"), kVocabulary);

}  // namespace
}  // namespace braid::text

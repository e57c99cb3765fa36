// Tokenizer::open on folders with tiktoken files.

#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"

namespace braid::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

std::string to_base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j) {
      bits = bits << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
    }
    for (size_t j = 0; j < 4; ++j) {
      out += i + j > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63];
    }
  }
  return out;
}

// The 256 bytes under their own numbers, then some longer tokens.
std::string some_lines(const std::vector<std::string>& longer = {"12", "he", "ll", "hell"}) {
  std::string lines;
  int rank = 0;
  for (; rank < 256; ++rank) {
    lines += to_base64(std::string(1, static_cast<char>(rank))) + " " + std::to_string(rank) + "\n";
  }
  for (const std::string& token : longer) {
    lines += to_base64(token) + " " + std::to_string(rank++) + "\n";
  }
  return lines;
}

constexpr int32_t k12 = 256, kHell = 259, kEnd = 300;

Json config_of(const std::string& cls) {
  return {{"tokenizer_class", cls},
          {"added_tokens_decoder", {{"300", {{"content", "<|im_end|>"}, {"special", true}}}}},
          {"eos_token", "<|im_end|>"}};
}

// A folder that is deleted with the object.
class TokenizerFolder {
 public:
  TokenizerFolder() {
    std::string pattern = (fs::temp_directory_path() / "braid-tokenizer-XXXXXX").string();
    BRAID_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  TokenizerFolder(const TokenizerFolder&) = delete;
  TokenizerFolder& operator=(const TokenizerFolder&) = delete;
  ~TokenizerFolder() { fs::remove_all(path_); }

  TokenizerFolder& write(const std::string& file, const std::string& text) {
    EXPECT_TRUE(write_file(path_ / file, text));
    return *this;
  }
  TokenizerFolder& write_json(const std::string& file, const Json& json) {
    return write(file, json.dump());
  }
  // What opening says, with DIR for the folder.
  std::string refusal() const {
    const auto tokenizer = Tokenizer::open(path_);
    if (tokenizer) return "opened";
    std::string message = tokenizer.error().message;
    for (size_t at; (at = message.find(path_.string())) != message.npos;) {
      message.replace(at, path_.string().size(), "DIR");
    }
    return message;
  }
  std::shared_ptr<const Tokenizer> open() const {
    auto tokenizer = Tokenizer::open(path_);
    if (!tokenizer) throw std::runtime_error(tokenizer.error().message);
    return *tokenizer;
  }

 private:
  fs::path path_;
};

TEST(TiktokenFolder, OpensAsKimisModels) {
  TokenizerFolder folder;
  folder.write("tiktoken.model", some_lines());
  folder.write_json("tokenizer_config.json", config_of("TikTokenTokenizer"));
  const auto tokenizer = folder.open();
  // Kimi's pattern leaves three digits together.
  EXPECT_EQ(tokenizer->encode("hello 1212<|im_end|>").value(),
            (Ids{kHell, 'o', ' ', k12, '1', '2', kEnd}));
  EXPECT_EQ(tokenizer->encode("<|im_end|>", {.allow_special = false})->size(), 10u);
  EXPECT_EQ(tokenizer->decode(Ids{kHell, 'o', kEnd}, false), "hello<|im_end|>");
  EXPECT_EQ(tokenizer->decode(Ids{kHell, 'o', kEnd}), "hello");
  EXPECT_EQ(tokenizer->eos_id(), kEnd);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), kEnd + 1);
}

TEST(TiktokenFolder, OpensAsQwensModels) {
  for (const char* cls : {"QWenTokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"}) {
    TokenizerFolder folder;
    folder.write("qwen.tiktoken", some_lines());
    folder.write_json("tokenizer_config.json", config_of(cls));
    // Qwen's pattern takes each digit alone.
    EXPECT_EQ(folder.open()->encode("hello 12").value(), (Ids{kHell, 'o', ' ', '1', '2'})) << cls;
  }
}

TEST(TiktokenFolder, TakesOneFileOfSeveral) {
  const auto size_of_hello = [](const TokenizerFolder& folder) {
    return folder.open()->encode("hello")->size();
  };
  TokenizerFolder folder;
  folder.write_json("tokenizer_config.json", config_of("QWenTokenizer"));
  folder.write("b.tiktoken", some_lines({}));
  EXPECT_EQ(size_of_hello(folder), 5u);
  folder.write("a.tiktoken", some_lines());  // the first by name
  EXPECT_EQ(size_of_hello(folder), 2u);
  folder.write("tiktoken.model", some_lines({"he"}));
  EXPECT_EQ(size_of_hello(folder), 4u);
  folder.write("tokenizer.json", "{");
  EXPECT_EQ(folder.refusal().find("DIR/tokenizer.json"), 0u) << folder.refusal();
}

TEST(TiktokenFolder, SaysWhatIsWrong) {
  const Json kimi = config_of("TikTokenTokenizer");
  const auto refusal = [](const std::string& lines, const Json& config) {
    TokenizerFolder folder;
    folder.write("tiktoken.model", lines);
    if (!config.is_null()) folder.write_json("tokenizer_config.json", config);
    return folder.refusal();
  };
  EXPECT_EQ(TokenizerFolder().refusal(),
            "DIR has no tokenizer.json, no tiktoken.model and no *.tiktoken file");
  const std::string other_class =
      ", tiktoken files are supported of TikTokenTokenizer (Kimi), QWenTokenizer and "
      "Qwen2Tokenizer";
  EXPECT_EQ(refusal(some_lines(), nullptr),
            "DIR/tiktoken.model: tokenizer_class in tokenizer_config.json is \"\"" + other_class);
  EXPECT_EQ(refusal(some_lines(), config_of("GPT2Tokenizer")),
            "DIR/tiktoken.model: tokenizer_class in tokenizer_config.json is \"GPT2Tokenizer\"" +
                other_class);
  EXPECT_EQ(refusal(some_lines(), Json::array()), "DIR/tokenizer_config.json: not a JSON object");
  const std::string bad_line = "DIR/tiktoken.model: line 257 is not a base64 token and its rank";
  for (const char* line :
       {"aGU=", "aGU= x", "aGU 256", "a*U= 256", "= 256", " 256", "aGU= 256 1"}) {
    EXPECT_EQ(refusal(some_lines({}) + line, kimi), bad_line) << line;
  }
  EXPECT_EQ(refusal(some_lines({"he", "he"}), kimi),
            "DIR/tiktoken.model: ids 256 and 257 have the same bytes");
  const std::string all = some_lines();
  EXPECT_EQ(refusal(all.substr(all.find('\n') + 1), kimi),
            "DIR/tiktoken.model: byte 0x00 has no token, every byte needs one");
  Json taken = kimi;
  taken["added_tokens_decoder"] = {{"259", {{"content", "<end>"}, {"special", true}}}};
  EXPECT_EQ(refusal(some_lines(), taken),
            "DIR/tiktoken.model: tokenizer_config.json: added token \"<end>\" has id 259, which is "
            "the id of \"hell\"");
}

}  // namespace
}  // namespace braid::text

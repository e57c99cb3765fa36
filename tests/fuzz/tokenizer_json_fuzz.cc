// A hostile tokenizer.json, and texts through whatever tokenizer it makes. An input is the file,
// and behind the first byte 0 a tokenizer_config.json.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using namespace braid;
using namespace braid::text;

constexpr std::string_view kTexts[] = {"", "Hello world, it's 2024!", "  \n\n\t x",
                                       "<s>a</s><|im_end|>ab",
                                       "\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80 e\xCC\x81"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(all.find('\0'), all.size());
  const Result<Json> json = parse_json(all.substr(0, cut));
  Json config;
  if (cut < all.size()) {
    Result<Json> parsed = parse_json(all.substr(cut + 1));
    if (parsed) config = std::move(*parsed);
  }
  if (!json) {
    // Not JSON: perhaps the lines of a tiktoken file.
    (void)Tokenizer::from_tiktoken(all.substr(0, cut), R"(\p{L}+|\s+|.)", {{"<s>", 1000}}, config);
    return 0;
  }
  const auto tokenizer = Tokenizer::from_json(*json, config);
  if (!tokenizer) {
    BRAID_CHECK(!tokenizer.error().message.empty());
    return 0;
  }
  for (const std::string_view text : kTexts) {
    const auto ids = (*tokenizer)->encode(text);
    if (!ids) continue;
    Detokenizer stream(*tokenizer, {.skip_special_tokens = false});
    std::string joined;
    for (const int32_t id : *ids) {
      BRAID_CHECK(id >= 0);
      const std::string piece = stream.push(id);
      BRAID_CHECK_EQ(find_broken_utf8(piece), std::string_view::npos);
      joined += piece;
    }
    BRAID_CHECK(joined + stream.flush() == (*tokenizer)->decode(*ids, false));
    MarkedText marked(text, true);
    const auto plain = (*tokenizer)->encode(marked);
    if (!plain) continue;
    for (const int32_t id : *plain) (void)(*tokenizer)->is_special(id);
  }
  return 0;
}

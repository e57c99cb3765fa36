// A hostile chat template on a usual conversation; behind the first byte 0 of the input, the
// messages as JSON.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "text/chat_template.h"
#include "text/utf8.h"

namespace {

constexpr std::string_view kMessages = R"([
  {"role": "system", "content": "Be brief."},
  {"role": "user", "content": "H\u00e9llo <|im_end|>"},
  {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": [1.5, null]}}}]},
  {"role": "tool", "content": "42"}])";
constexpr std::string_view kOptions =
    R"({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "x": 3})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(all.find('\0'), all.size());
  const auto parsed = braid::text::ChatTemplate::parse(all.substr(0, cut), {{"bos_token", "<s>"}});
  if (!parsed) {
    BRAID_CHECK(!parsed.error().message.empty());
    return 0;
  }
  const std::string_view messages = cut < all.size() ? all.substr(cut + 1) : kMessages;
  const auto text = parsed->render({.messages = messages, .options = kOptions, .now = std::tm()});
  if (!text) return 0;
  BRAID_CHECK_EQ(braid::text::find_broken_utf8(text->text()), std::string_view::npos);
  size_t end = 0;
  for (const braid::text::Range& range : text->input()) {
    BRAID_CHECK(range.begin < range.end && range.begin >= end && range.end <= text->size());
    end = range.end;
  }
  return 0;
}

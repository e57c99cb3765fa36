#pragma once

#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/marked_text.h"

namespace braid::text {

// What a chat template writes out.
struct ChatInput {
  // A JSON array of messages, each an object with "role" and what the template reads.
  std::string_view messages;
  // A JSON object: "tools" (array), "documents", "add_generation_prompt" (default true) and further
  // variables of the template, such as "enable_thinking".
  std::string_view options = "{}";
  // What strftime_now shows; nothing: the local time.
  std::optional<std::tm> now;
};

// The Jinja template of a model that turns a conversation into a prompt, as transformers renders
// it: same output, same blank lines, same errors raised by the template. The template is data of
// the checkpoint and not trusted: it can take no more than bounded time and memory, and reaches
// nothing outside its variables.
//
// All text of messages, tools and options is marked as input, so that Tokenizer::encode never makes
// a control token of it. The one exception are the names of roles ("user", "assistant", ...):
// templates build control tokens of these.
//
// Const members may be called from any thread.
class ChatTemplate {
 public:
  static constexpr size_t kMaxSourceBytes = size_t{1} << 20;

  // `special_tokens` are variables by name: {"bos_token": "<s>", ...}. Their text is trusted.
  //
  // Errors  kUnsupported      the template's syntax, with its line
  //         kInvalidArgument  larger than kMaxSourceBytes, or not UTF-8
  static Result<ChatTemplate> parse(std::string_view source,
                                    std::map<std::string, std::string> special_tokens = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // Errors  kInvalidArgument  messages or options are not as described, or the template refuses the
  //                           conversation: its own message, or the line and what went wrong
  Result<MarkedText> render(const ChatInput& input) const;

 private:
  struct Data;
  explicit ChatTemplate(std::unique_ptr<Data> data);
  std::unique_ptr<const Data> data_;
};

// The templates of a model folder: the usual one, and where there is one that for tools.
class ChatTemplates {
 public:
  // Looks for chat_template.jinja, then chat_template.json, then "chat_template" in
  // tokenizer_config.json, which is a template or a list of {"name", "template"}, of which
  // "default" and "tool_use" are taken.
  //
  // Errors  kNotFound (no template)  kCorrupt  kIo  and those of ChatTemplate::parse
  static Result<ChatTemplates> open(const std::filesystem::path& folder);

  // With the template for tools when options have tools.
  //
  // Errors  those of ChatTemplate::render
  Result<MarkedText> render(const ChatInput& input) const;

 private:
  explicit ChatTemplates(ChatTemplate usual) : default_(std::move(usual)) {}

  ChatTemplate default_;
  std::optional<ChatTemplate> tool_use_;
};

}  // namespace braid::text

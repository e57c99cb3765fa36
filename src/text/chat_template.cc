#include "text/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "base/json.h"
#include "base/result.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/json_value.h"
#include "text/jinja/parser.h"
#include "text/json_fields.h"
#include "text/utf8.h"

namespace braid::text {
namespace {

namespace fs = std::filesystem;
using jinja::Value;

// Words that no template needs to be protected from. A role of any other name is input.
constexpr std::string_view kRoles[] = {"system",    "user",        "assistant", "tool", "function",
                                       "developer", "observation", "ipython",   "model"};

// A message whose role, where it is one of the known ones, counts as the template's own text.
Value with_trusted_role(const Value& message) {
  const Value* role = message.dict()->find("role");
  const MarkedText* name = role ? role->text() : nullptr;
  if (!name || std::find(std::begin(kRoles), std::end(kRoles), name->text()) == std::end(kRoles)) {
    return message;
  }
  jinja::Dict copy = *message.dict();
  copy.set(Value("role"), Value(name->text()));
  return Value::dict(std::move(copy));
}

Result<Value> read_messages(std::string_view json) {
  Result<Value> messages = jinja::parse_json_value(json);
  if (!messages) return pass_on(messages, "messages");
  const jinja::Sequence* list = messages->sequence();
  if (!list) {
    return fail(ErrorCode::kInvalidArgument, "messages are of type {}, need an array of objects",
                messages->type_name());
  }
  jinja::List out;
  for (const Value& message : list->items) {
    if (!message.dict()) {
      return fail(ErrorCode::kInvalidArgument, "message {} is of type {}, need an object",
                  out.size(), message.type_name());
    }
    out.push_back(with_trusted_role(message));
  }
  return Value::list(std::move(out));
}

Result<Value> read_options(std::string_view json) {
  Result<Value> options = jinja::parse_json_value(json);
  if (!options) return pass_on(options, "chat template options");
  const jinja::Dict* dict = options->dict();
  if (!dict) {
    return fail(ErrorCode::kInvalidArgument, "chat template options are of type {}, need an object",
                options->type_name());
  }
  if (dict->find("messages")) {
    return fail(ErrorCode::kInvalidArgument, "chat template options have a second \"messages\"");
  }
  const Value* tools = dict->find("tools");
  if (tools && !tools->is_none() && !tools->sequence()) {
    return fail(ErrorCode::kInvalidArgument, "tools are of type {}, need an array",
                tools->type_name());
  }
  return options;
}

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm fields = {};
  localtime_r(&now, &fields);
  return fields;
}

}  // namespace

struct ChatTemplate::Data {
  jinja::Body body;
  std::map<std::string, std::string> special_tokens;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Data> data) : data_(std::move(data)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source,
                                         std::map<std::string, std::string> special_tokens) {
  if (source.size() > kMaxSourceBytes) {
    return fail(ErrorCode::kInvalidArgument,
                "the chat template has {} bytes, at most {} are accepted", source.size(),
                kMaxSourceBytes);
  }
  if (const size_t at = find_broken_utf8(source); at != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument,
                "the chat template is not well-formed UTF-8 at byte {}", at);
  }
  auto data = std::make_unique<Data>();
  try {
    data->body = jinja::parse(source);
  } catch (const jinja::Failure& failure) {
    return fail(ErrorCode::kUnsupported, "chat template, {}", failure.message);
  }
  data->special_tokens = std::move(special_tokens);
  return ChatTemplate(std::move(data));
}

Result<MarkedText> ChatTemplate::render(const ChatInput& input) const {
  Result<Value> messages = read_messages(input.messages);
  if (!messages) return pass_on(messages);
  Result<Value> options = read_options(input.options);
  if (!options) return pass_on(options);

  // Later names win, as keyword arguments of transformers do over special tokens.
  std::vector<std::pair<std::string, Value>> variables = {{"messages", std::move(*messages)},
                                                          {"tools", Value()},
                                                          {"documents", Value()},
                                                          {"add_generation_prompt", Value(true)}};
  const auto set = [&](const std::string& name, Value value) {
    for (auto& [known, old] : variables) {
      if (known == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  };
  for (const auto& [name, token] : data_->special_tokens) set(name, Value(token));
  for (const auto& [name, value] : options->dict()->entries()) set(name.text()->text(), value);
  try {
    return jinja::render(data_->body, variables, input.now.value_or(local_time()));
  } catch (const jinja::Failure& failure) {
    if (failure.raised) {
      return fail(ErrorCode::kInvalidArgument, "the chat template refuses this conversation: {}",
                  failure.message);
    }
    return fail(ErrorCode::kInvalidArgument, "chat template, {}", failure.message);
  }
}

namespace {

// "bos_token": "<s>" and the like, of tokenizer_config.json.
std::map<std::string, std::string> special_tokens_of(const Json& config) {
  std::map<std::string, std::string> tokens;
  if (!config.is_object()) return tokens;
  for (const auto& [key, value] : config.items()) {
    if (!key.ends_with("_token")) continue;
    const Json* content = value.is_object() ? find_field(value, "content") : &value;
    if (content && content->is_string()) tokens[key] = content->get<std::string>();
  }
  return tokens;
}

// Sources by name: "default", and perhaps "tool_use".
Result<std::map<std::string, std::string>> sources_of(const Json& field) {
  std::map<std::string, std::string> sources;
  if (field.is_string()) {
    sources["default"] = field.get<std::string>();
    return sources;
  }
  if (!field.is_array()) {
    return fail(ErrorCode::kCorrupt, "\"chat_template\" is of type {}, need a string or an array",
                field.type_name());
  }
  for (const Json& entry : field) {
    Result<std::string> name = get_string(entry, "name");
    if (!name) return pass_on(name, "chat_template");
    Result<std::string> source = get_string(entry, "template");
    if (!source) return pass_on(source, "chat_template \"" + *name + "\"");
    sources[*name] = std::move(*source);
  }
  return sources;
}

}  // namespace

Result<ChatTemplates> ChatTemplates::open(const fs::path& folder) {
  std::error_code error;
  const fs::path config_path = folder / "tokenizer_config.json";
  Json config;
  if (fs::exists(config_path, error)) {
    Result<Json> read = read_json_file(config_path);
    if (!read) return pass_on(read);
    config = std::move(*read);
  }
  fs::path path = folder / "chat_template.jinja";
  std::map<std::string, std::string> sources;
  if (fs::exists(path, error)) {
    Result<std::string> source = read_file(path, ChatTemplate::kMaxSourceBytes);
    if (!source) return pass_on(source);
    sources["default"] = std::move(*source);
  } else {
    path = folder / "chat_template.json";
    const bool has_json = fs::exists(path, error);
    Result<Json> json = has_json ? read_json_file(path) : Result<Json>(std::move(config));
    if (!json) return pass_on(json);
    if (!has_json) path = config_path;
    const Json* field = find_field(*json, "chat_template");
    if (!field) {
      return fail(ErrorCode::kNotFound,
                  "{} has no chat template: no chat_template.jinja, and no \"chat_template\" in "
                  "chat_template.json or tokenizer_config.json",
                  folder.string());
    }
    auto found = sources_of(*field);
    if (!found) return pass_on(found, path.string());
    sources = std::move(*found);
    if (!has_json) config = std::move(*json);
  }

  const auto source = sources.find("default");
  if (source == sources.end()) {
    return fail(ErrorCode::kUnsupported, "{}: none of the chat templates is named \"default\"",
                path.string());
  }
  const auto tokens = special_tokens_of(config);
  Result<ChatTemplate> usual = ChatTemplate::parse(source->second, tokens);
  if (!usual) return pass_on(usual, path.string());
  ChatTemplates templates(std::move(*usual));
  if (const auto tool_use = sources.find("tool_use"); tool_use != sources.end()) {
    Result<ChatTemplate> parsed = ChatTemplate::parse(tool_use->second, tokens);
    if (!parsed) return pass_on(parsed, path.string() + ", template \"tool_use\"");
    templates.tool_use_ = std::move(*parsed);
  }
  return templates;
}

Result<MarkedText> ChatTemplates::render(const ChatInput& input) const {
  if (!tool_use_) return default_.render(input);
  Result<Value> options = read_options(input.options);
  if (!options) return pass_on(options);
  const Value* tools = options->dict()->find("tools");
  return tools && tools->truth() ? tool_use_->render(input) : default_.render(input);
}

}  // namespace braid::text

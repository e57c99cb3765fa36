#include "server/grammar_fields.h"

#include <fmt/format.h>

#include "base/json.h"
#include "server/json_text.h"

namespace braid::server {
namespace {

// One of these strings and nothing else, as an expression.
std::string choice_regex(const std::vector<std::string>& choices) {
  std::string regex;
  for (const std::string& choice : choices) {
    regex += regex.empty() ? "(" : "|";
    for (const char c : choice) {
      if (std::string_view("\\^$.|?*+()[]{}/-").find(c) != std::string_view::npos) regex += '\\';
      regex += c;
    }
  }
  return regex + ")";
}

class Reader {
 public:
  Reader(JsonFields& fields, std::optional<OutputGrammar>& grammar)
      : fields_(fields), grammar_(grammar) {}

  // A schema as JSON, or as a string that holds JSON.
  void schema(JsonFields& from, std::string_view key) {
    const Json* value = from.find(key);
    if (value == nullptr) return;
    if (value->is_string()) return set(key, GrammarKind::kJsonSchema, value->get<std::string>());
    if (!value->is_object() && !value->is_boolean())
      return from.complain_of(key, *value, "a JSON Schema");
    set(key, GrammarKind::kJsonSchema, json_text(*value));
  }

  void regex(JsonFields& from, std::string_view key) {
    if (from.find(key) == nullptr) return;
    std::string text;
    from.read_string(key, text);
    set(key, GrammarKind::kRegex, std::move(text));
  }

  void choice(JsonFields& from, std::string_view key) {
    if (from.find(key) == nullptr) return;
    std::vector<std::string> choices;
    from.read(key, choices, "an array of strings");
    if (choices.empty()) from.complain(key, fmt::format("{} has no choice", key));
    set(key, GrammarKind::kRegex, choice_regex(choices));
  }

  void object(std::string_view key) { set(key, GrammarKind::kJsonObject, ""); }

 private:
  void set(std::string_view key, GrammarKind kind, std::string text) {
    if (grammar_) {
      fields_.complain(key, fmt::format("{}: the request already says what its reply must look "
                                        "like; say it once",
                                        key));
    }
    grammar_ = OutputGrammar{.kind = kind, .text = std::move(text)};
  }

  JsonFields& fields_;
  std::optional<OutputGrammar>& grammar_;
};

void read_response_format(JsonFields& fields, Reader& reader) {
  const Json* value = fields.find("response_format");
  if (value == nullptr) return;
  JsonFields format(*value, "response_format.");
  std::string type;
  format.read_string("type", type);
  if (type == "json_object") {
    reader.object("response_format");
  } else if (type == "json_schema") {
    const Json* inner = format.find("json_schema");
    if (inner == nullptr) {
      format.complain("json_schema", "response_format.json_schema is missing");
    } else {
      JsonFields schema(*inner, "response_format.json_schema.");
      if (schema.find("schema") == nullptr)
        schema.complain("schema", "response_format.json_schema.schema is missing");
      reader.schema(schema, "schema");
      if (schema.error()) format.complain("json_schema", schema.error()->message);
    }
  } else if (type != "text") {
    format.complain("type", fmt::format("response_format.type is \"{}\", accepted are \"text\", "
                                        "\"json_object\" and \"json_schema\"",
                                        type.substr(0, 100)));
  }
  if (format.error()) fields.complain("response_format", format.error()->message);
}

}  // namespace

void read_grammar(JsonFields& fields, std::optional<OutputGrammar>& grammar) {
  Reader reader(fields, grammar);
  read_response_format(fields, reader);
  if (const Json* value = fields.find("structured_outputs")) {
    JsonFields inner(*value, "structured_outputs.");
    reader.schema(inner, "json");
    reader.regex(inner, "regex");
    reader.choice(inner, "choice");
    bool any_object = false;
    inner.read_bool("json_object", any_object);
    if (any_object) reader.object("structured_outputs");
    for (const char* key : {"grammar", "structural_tag"}) {
      if (inner.find(key) != nullptr)
        inner.complain(key, fmt::format("structured_outputs.{} is not supported", key));
    }
    if (inner.error()) fields.complain("structured_outputs", inner.error()->message);
  }
  reader.schema(fields, "guided_json");
  reader.regex(fields, "guided_regex");
  reader.choice(fields, "guided_choice");
  reader.schema(fields, "json_schema");
  reader.regex(fields, "regex");
  for (const char* key : {"ebnf", "guided_grammar", "structural_tag"}) {
    const Json* value = fields.find(key);
    if (value != nullptr && *value != "") {
      fields.complain(key, fmt::format("{} is not supported; use a JSON Schema or a regex", key));
    }
  }
}

}  // namespace braid::server

#include "server/schema_text.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/json.h"

namespace braid::server {
namespace {

// Where schemas stand in the APIs that are spoken here.
const std::vector<std::vector<std::string_view>> kPaths = {
    {"response_format", "json_schema", "schema"},
    {"structured_outputs", "json"},
    {"guided_json"},
    {"json_schema"},
    {"sampling_params", "json_schema"},
};

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Walks well-formed JSON; at its end every place is the end, so broken text cannot lead further.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool is_at(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void skip_spaces() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  bool take(char c) {
    skip_spaces();
    if (!is_at(c)) return false;
    ++at_;
    return true;
  }

  // A string without its quotes, as it is written.
  std::string_view take_string() {
    if (!take('"')) return {};
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    at_ = std::min(at_, text_.size());
    const std::string_view inside = text_.substr(begin, at_ - begin);
    take('"');
    return inside;
  }

  std::string_view take_value() {
    skip_spaces();
    const size_t begin = at_;
    int depth = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        take_string();
      } else if (c == '{' || c == '[') {
        ++depth;
        ++at_;
      } else if (c == '}' || c == ']') {
        if (depth == 0) break;  // of what the value is in
        --depth;
        ++at_;
      } else if (depth == 0 && (c == ',' || is_space(c))) {
        break;
      } else {
        ++at_;
        continue;
      }
      if (depth == 0) break;
    }
    return text_.substr(begin, at_ - begin);
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

std::string_view member_text(std::string_view json, std::string_view key) {
  Scanner scanner(json);
  if (!scanner.take('{')) return {};
  do {
    scanner.skip_spaces();
    if (!scanner.is_at('"')) return {};
    const std::string_view name = scanner.take_string();
    if (!scanner.take(':')) return {};
    const std::string_view value = scanner.take_value();
    if (name == key) return value;
  } while (scanner.take(','));
  return {};
}

}  // namespace

std::string_view json_text_at(std::string_view json, std::span<const std::string_view> path) {
  for (const std::string_view key : path) json = member_text(json, key);
  return json;
}

void keep_schema_text(Json& request, std::string_view body) {
  for (const auto& path : kPaths) {
    Json* value = &request;
    for (const std::string_view key : path) {
      const bool has_key = value->is_object() && value->contains(key);
      value = has_key ? &(*value)[std::string(key)] : nullptr;
      if (value == nullptr) break;
    }
    if (value == nullptr || !value->is_object()) continue;
    const std::string_view text = json_text_at(body, path);
    if (!text.empty()) *value = std::string(text);
  }
}

}  // namespace braid::server

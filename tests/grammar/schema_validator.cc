#include "tests/grammar/schema_validator.h"

#include <cmath>
#include <regex>
#include <set>
#include <stdexcept>

namespace braid::test {
namespace {

using nlohmann::json;

size_t count_code_points(const std::string& text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0u) != 0x80u;
  return count;
}

bool has_type(const json& value, const std::string& type) {
  if (type == "integer")
    return value.is_number_integer() ||
           (value.is_number() && std::floor(value.get<double>()) == value.get<double>());
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  throw std::runtime_error("type " + type);
}

bool has_format(const std::string& text, const std::string& format) {
  const auto matches = [&](const char* regex) { return std::regex_match(text, std::regex(regex)); };
  const auto is_date = [](const std::string& date) {
    if (!std::regex_match(date, std::regex("\\d{4}-\\d\\d-\\d\\d"))) return false;
    const int y = std::stoi(date), m = std::stoi(date.substr(5)), d = std::stoi(date.substr(8));
    const bool is_leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    const int days[] = {31, is_leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return m >= 1 && m <= 12 && d >= 1 && d <= days[m - 1];
  };
  if (format == "date") return is_date(text);
  if (format == "date-time")
    return is_date(text.substr(0, 10)) &&
           matches("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)");
  if (format == "uuid") return matches("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}");
  if (format == "ipv4") return matches("(\\d{1,3}\\.){3}\\d{1,3}");
  if (format == "email") return matches("[^@]+@[^@]+\\.[^@.]+");
  throw std::runtime_error("format " + format);
}

class Validator {
 public:
  explicit Validator(const json& root) : root_(root) {}

  std::string check(const json& value, const json& schema, const std::string& at) const {
    if (schema.is_boolean()) return schema.get<bool>() ? "" : at + ": false";
    for (const auto& [keyword, rule] : schema.items()) {
      const auto why = check_keyword(value, schema, keyword, rule, at);
      if (!why.empty()) return why;
    }
    return {};
  }

 private:
  int count_valid(const json& value, const json& schemas, const std::string& at) const {
    int count = 0;
    for (const json& schema : schemas) count += check(value, schema, at).empty();
    return count;
  }

  std::string check_keyword(const json& value, const json& schema, const std::string& keyword,
                            const json& rule, const std::string& at) const {
    static const std::set<std::string> kNoRules = {
        "$schema",    "$id",      "title",     "description", "default", "examples",
        "deprecated", "readOnly", "writeOnly", "$comment",    "$defs",   "definitions"};
    const auto that = [&](bool holds) { return holds ? "" : at + ": " + keyword; };
    if (kNoRules.contains(keyword)) return {};
    if (keyword == "type") {
      if (rule.is_string()) return that(has_type(value, rule));
      bool any = false;
      for (const json& type : rule) any = any || has_type(value, type);
      return that(any);
    }
    if (keyword == "enum") return that(std::find(rule.begin(), rule.end(), value) != rule.end());
    if (keyword == "const") return that(value == rule);
    if (keyword == "anyOf") return that(count_valid(value, rule, at) > 0);
    if (keyword == "oneOf") return that(count_valid(value, rule, at) == 1);
    if (keyword == "allOf")
      return that(count_valid(value, rule, at) == static_cast<int>(rule.size()));
    if (keyword == "$ref") {
      std::string pointer = rule.get<std::string>().substr(1);
      for (size_t i; (i = pointer.find("%2F")) != pointer.npos;) pointer.replace(i, 3, "~1");
      return check(value, root_.at(json::json_pointer(pointer)), at);
    }
    if (keyword == "minimum") return that(!value.is_number() || value.get<double>() >= rule);
    if (keyword == "maximum") return that(!value.is_number() || value.get<double>() <= rule);
    if (keyword == "exclusiveMinimum")
      return that(!value.is_number() || value.get<double>() > rule);
    if (keyword == "exclusiveMaximum")
      return that(!value.is_number() || value.get<double>() < rule);
    if (keyword == "minLength") return that(!value.is_string() || count_code_points(value) >= rule);
    if (keyword == "maxLength") return that(!value.is_string() || count_code_points(value) <= rule);
    if (keyword == "format") return that(!value.is_string() || has_format(value, rule));
    if (keyword == "pattern")
      return that(!value.is_string() ||
                  std::regex_search(value.get<std::string>(), std::regex(rule.get<std::string>())));
    if (keyword == "minItems") return that(!value.is_array() || value.size() >= rule);
    if (keyword == "maxItems") return that(!value.is_array() || value.size() <= rule);
    if (keyword == "prefixItems" || keyword == "items")
      return check_items(value, schema, keyword, at);
    if (keyword == "required") {
      for (const json& key : rule) {
        if (value.is_object() && !value.contains(key.get<std::string>())) return at + ": required";
      }
      return {};
    }
    if (keyword == "properties" || keyword == "additionalProperties")
      return check_members(value, schema, keyword, at);
    throw std::runtime_error("keyword " + keyword);
  }

  std::string check_items(const json& value, const json& schema, const std::string& keyword,
                          const std::string& at) const {
    if (!value.is_array()) return {};
    const size_t num_prefix = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
    for (size_t i = 0; i < value.size(); ++i) {
      if ((i < num_prefix) != (keyword == "prefixItems")) continue;
      const json& rule = i < num_prefix ? schema["prefixItems"][i] : schema["items"];
      const auto why = check(value[i], rule, at + "/" + std::to_string(i));
      if (!why.empty()) return why;
    }
    return {};
  }

  std::string check_members(const json& value, const json& schema, const std::string& keyword,
                            const std::string& at) const {
    if (!value.is_object()) return {};
    for (const auto& [key, member] : value.items()) {
      const bool is_named = schema.contains("properties") && schema["properties"].contains(key);
      if (is_named != (keyword == "properties")) continue;
      const json& rule = is_named ? schema["properties"][key] : schema["additionalProperties"];
      const auto why = check(member, rule, at + "/" + key);
      if (!why.empty()) return why;
    }
    return {};
  }

  const json& root_;
};

}  // namespace

std::string why_not_valid(const json& value, const json& schema) {
  return Validator(schema).check(value, schema, "#");
}

}  // namespace braid::test

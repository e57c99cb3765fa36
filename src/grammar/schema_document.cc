#include "grammar/schema_document.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace braid::grammar {

const Types kAllTypes = {"array", "boolean", "integer", "null", "number", "object", "string"};

namespace {

struct Keyword {
  std::string_view name;
  std::string_view type;  // that it speaks of
};

// Keywords that say something, of one type each. `integer` stands for numbers of both kinds.
constexpr Keyword kTyped[] = {
    {"properties", "object"}, {"required", "object"},         {"additionalProperties", "object"},
    {"items", "array"},       {"prefixItems", "array"},       {"minItems", "array"},
    {"maxItems", "array"},    {"pattern", "string"},          {"minLength", "string"},
    {"maxLength", "string"},  {"format", "string"},           {"minimum", "number"},
    {"maximum", "number"},    {"exclusiveMinimum", "number"}, {"exclusiveMaximum", "number"},
};
constexpr std::string_view kDeciding[] = {"$ref", "allOf", "anyOf", "oneOf", "enum", "const"};
constexpr std::string_view kAnnotations[] = {"title",      "description", "default",    "examples",
                                             "deprecated", "readOnly",    "writeOnly",  "$comment",
                                             "$schema",    "$defs",       "definitions"};
constexpr int kMaxReferences = 64;

template <class List>
bool is_among(const List& list, std::string_view name) {
  return std::ranges::find(list, name) != std::end(list);
}

bool is_typed(std::string_view name) {
  return std::ranges::any_of(kTyped, [&](const Keyword& k) { return k.name == name; });
}

bool has_type(const OrderedJson& value, const Types& types) {
  switch (value.type()) {
    case OrderedJson::value_t::null:
      return types.contains("null");
    case OrderedJson::value_t::boolean:
      return types.contains("boolean");
    case OrderedJson::value_t::string:
      return types.contains("string");
    case OrderedJson::value_t::object:
      return types.contains("object");
    case OrderedJson::value_t::array:
      return types.contains("array");
    case OrderedJson::value_t::number_float:
      return types.contains("number");
    default:
      return types.contains("number") || types.contains("integer");
  }
}

// Percent signs, then ~1 and ~0. False for a broken one.
bool decode_token(std::string_view raw, std::string& out) {
  std::string plain;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '%') {
      plain += raw[i];
      continue;
    }
    if (i + 2 >= raw.size()) return false;
    uint8_t byte = 0;
    const char* end = raw.data() + i + 3;
    if (std::from_chars(raw.data() + i + 1, end, byte, 16).ptr != end) return false;
    plain += static_cast<char>(byte);
    i += 2;
  }
  out.clear();
  for (size_t i = 0; i < plain.size(); ++i) {
    if (plain[i] != '~') {
      out += plain[i];
      continue;
    }
    if (i + 1 >= plain.size() || (plain[i + 1] != '0' && plain[i + 1] != '1')) return false;
    out += plain[++i] == '0' ? '~' : '/';
  }
  return true;
}

const OrderedJson* child_of(const OrderedJson& json, const std::string& token) {
  if (json.is_object()) {
    const auto found = json.find(token);
    return found == json.end() ? nullptr : &*found;
  }
  size_t index = 0;
  const char* end = token.data() + token.size();
  if (!json.is_array() || std::from_chars(token.data(), end, index).ptr != end || token.empty() ||
      index >= json.size())
    return nullptr;
  return &json[index];
}

}  // namespace

std::string SchemaPart::pointer_to(std::string_view key) const {
  std::string out = pointer + "/";
  for (const char c : key.substr(0, 200)) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

Status check_keywords(const SchemaPart& schema) {
  if (!schema.json->is_object())
    return invalid(schema, "a schema is an object, true or false, this is {}",
                   schema.json->type_name());
  for (const auto& [name, value] : schema.json->items()) {
    if (name == "type" || is_typed(name) || is_among(kDeciding, name) ||
        is_among(kAnnotations, name))
      continue;
    if (name == "$id" && schema.pointer == "#") continue;
    return unsupported(schema, "the keyword \"{}\"", name.substr(0, 100));
  }
  return {};
}

Status check_alone(const SchemaPart& schema, std::string_view keyword) {
  const bool is_constant = keyword == "enum" || keyword == "const";
  for (const auto& [name, value] : schema.json->items()) {
    if (name == keyword || is_among(kAnnotations, name) || name == "$id") continue;
    if (is_constant && name == "type") continue;
    return unsupported(schema, "\"{}\" beside \"{}\"", name, keyword);
  }
  return {};
}

Result<SchemaPart> SchemaDocument::target_of(const SchemaPart& schema) const {
  const SchemaPart reference = schema.at("$ref");
  if (!reference.json->is_string()) return invalid(reference, "need a string");
  const std::string_view text = reference.json->get_ref<const std::string&>();
  if (!text.starts_with('#') || (text.size() > 1 && text[1] != '/')) {
    return unsupported(reference,
                       "the reference \"{}\"; accepted are \"#\" and \"#/...\" of this schema,",
                       text.substr(0, 200));
  }
  SchemaPart part = {&root_, std::string(text)};
  size_t at = 1;
  std::string token;
  while (at < text.size()) {
    const size_t end = std::min(text.find('/', at + 1), text.size());
    const OrderedJson* child = nullptr;
    if (decode_token(text.substr(at + 1, end - at - 1), token)) child = child_of(*part.json, token);
    if (child == nullptr) return invalid(reference, "\"{}\" is not there", text.substr(0, 200));
    part.json = child;
    at = end;
  }
  return part;
}

Result<std::vector<const OrderedJson*>> SchemaDocument::constants_of(
    const SchemaPart& schema) const {
  std::vector<const OrderedJson*> constants;
  if (schema.has("const")) {
    constants.push_back(schema.at("const").json);
  } else {
    const SchemaPart list = schema.at("enum");
    if (!list.json->is_array()) return invalid(list, "need an array");
    for (const OrderedJson& value : *list.json) constants.push_back(&value);
  }
  if (schema.has("type")) {
    const auto types = types_of(schema);
    if (!types) return tl::unexpected<Error>(types.error());
    std::erase_if(constants, [&](const OrderedJson* value) { return !has_type(*value, *types); });
  }
  if (constants.empty()) return invalid(schema, "no constant is left that its type allows");
  return constants;
}

Result<Types> SchemaDocument::types_of(const SchemaPart& schema) const {
  Types types;
  if (!schema.has("type")) {
    for (const Keyword& keyword : kTyped) {
      if (schema.has(keyword.name)) types.insert(keyword.type);
    }
    return types.empty() ? kAllTypes : types;
  }
  const SchemaPart type = schema.at("type");
  const auto take = [&](const OrderedJson& name) {
    const auto known =
        name.is_string() ? kAllTypes.find(name.get_ref<const std::string&>()) : kAllTypes.end();
    if (known != kAllTypes.end()) types.insert(*known);
    return known != kAllTypes.end();
  };
  bool is_known = !type.json->empty();
  if (type.json->is_array()) {
    for (const OrderedJson& name : *type.json) is_known = is_known && take(name);
  } else {
    is_known = take(*type.json);
  }
  if (!is_known) {
    return invalid(type, "{} is no type; known are {}", type.json->dump().substr(0, 200),
                   fmt::join(kAllTypes, ", "));
  }
  return types;
}

Result<std::vector<SchemaPart>> SchemaDocument::list(const SchemaPart& schema,
                                                     std::string_view keyword) const {
  const SchemaPart list = schema.at(keyword);
  if (!list.json->is_array() || list.json->empty())
    return invalid(list, "need an array of at least one schema");
  std::vector<SchemaPart> parts;
  for (const OrderedJson& part : *list.json)
    parts.push_back({&part, list.pointer_to(std::to_string(parts.size()))});
  return parts;
}

bool SchemaDocument::follow(SchemaPart& part) const {
  for (int i = 0; part.has("$ref") && i < kMaxReferences; ++i) {
    auto target = target_of(part);
    if (!target) return false;
    part = std::move(*target);
  }
  return part.json->is_object() && !part.has("$ref");
}

bool SchemaDocument::are_distinct(SchemaPart a, SchemaPart b, int depth) const {
  if (depth > 2 || !follow(a) || !follow(b)) return false;
  const auto has_constants = [](const SchemaPart& s) { return s.has("enum") || s.has("const"); };
  // With constants on one side, the types or the constants of the other decide.
  if (has_constants(a) || has_constants(b)) {
    if (!has_constants(a)) std::swap(a, b);
    const auto of_a = constants_of(a);
    if (!of_a) return false;
    if (has_constants(b)) {
      const auto of_b = constants_of(b);
      return of_b && std::ranges::none_of(*of_a, [&](const OrderedJson* x) {
               return std::ranges::any_of(*of_b, [&](const OrderedJson* y) { return *x == *y; });
             });
    }
    const auto types = types_of(b);
    return types &&
           std::ranges::none_of(*of_a, [&](const OrderedJson* x) { return has_type(*x, *types); });
  }
  for (const std::string_view keyword : {"allOf", "anyOf", "oneOf"}) {
    if (a.has(keyword) || b.has(keyword)) return false;
  }
  const auto types_a = types_of(a), types_b = types_of(b);
  if (!types_a || !types_b) return false;
  const auto overlaps = [&](std::string_view type) {
    if (type == "integer" || type == "number")
      return types_b->contains("number") || types_b->contains("integer");
    return types_b->contains(type);
  };
  const auto num_shared = std::ranges::count_if(*types_a, overlaps);
  if (num_shared == 0) return true;
  // Two objects, told apart by a property that both must have.
  if (num_shared > 1 || !types_a->contains("object") || !types_b->contains("object")) return false;
  for (const SchemaPart& s : {a, b}) {
    if (!s.has("required") || !s.at("required").json->is_array() || !s.has("properties"))
      return false;
  }
  const SchemaPart in_a = a.at("properties"), in_b = b.at("properties");
  for (const OrderedJson& key : *a.at("required").json) {
    const OrderedJson& others = *b.at("required").json;
    if (!key.is_string() || std::ranges::find(others, key) == others.end()) continue;
    const auto& name = key.get_ref<const std::string&>();
    if (in_a.has(name) && in_b.has(name) && are_distinct(in_a.at(name), in_b.at(name), depth + 1))
      return true;
  }
  return false;
}

Status SchemaDocument::check_distinct(const SchemaPart& schema,
                                      const std::vector<SchemaPart>& branches) const {
  constexpr size_t kMaxBranches = 200;  // pairs of them are looked at
  if (branches.size() > kMaxBranches)
    return invalid(schema, "\"oneOf\" has {} schemas, accepted are up to {}", branches.size(),
                   kMaxBranches);
  for (size_t i = 0; i < branches.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (are_distinct(branches[j], branches[i], 0)) continue;
      return unsupported(schema,
                         "\"oneOf\" whose schemas {} and {} are not told apart by their types, "
                         "constants or a required property's; \"anyOf\" takes either, it",
                         j, i);
    }
  }
  return {};
}

}  // namespace braid::grammar

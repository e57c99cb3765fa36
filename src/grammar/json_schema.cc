#include "grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "grammar/fragments.h"
#include "grammar/json_text.h"
#include "grammar/regex_syntax.h"
#include "grammar/schema_document.h"
#include "grammar/string_formats.h"

namespace braid::grammar {
namespace {

constexpr int32_t kMaxCount = 1'000'000;  // of items or characters; states run out long before

struct Count {
  int32_t min = 0;
  int32_t max = -1;  // -1: without end
};

class SchemaWriter {
 public:
  SchemaWriter(NetworkBuilder& net, const SchemaDocument& document)
      : net_(net), json_(net), document_(document) {}

  Status write() {
    rule_of({&document_.root(), "#"});
    while (!unwritten_.empty()) {
      const auto [rule, schema] = unwritten_.back();
      unwritten_.pop_back();
      const StateId start = net_.add_state();
      net_.set_start(rule, start);
      const auto end = add(start, schema);
      if (!end) return tl::unexpected<Error>(end.error());
      net_.set_final(*end);
    }
    json_.finish();
    return {};
  }

 private:
  using Behind = Result<StateId>;

  RuleId rule_of(const SchemaPart& schema) {
    const auto known = rules_.find(schema.json);
    if (known != rules_.end()) return known->second;
    const RuleId rule = net_.add_rule(schema.pointer);
    rules_.emplace(schema.json, rule);
    unwritten_.emplace_back(rule, schema);
    return rule;
  }

  Behind add_rule_call(StateId from, const SchemaPart& schema) {
    const StateId to = net_.add_state();
    net_.add_call(from, rule_of(schema), to);
    return to;
  }

  Behind add(StateId from, const SchemaPart& schema) {
    if (schema.json->is_boolean()) {
      if (schema.json->get<bool>()) return json_.add_value(from);
      return invalid(schema, "false allows no value at all");
    }
    if (auto status = check_keywords(schema); !status) return pass_on(status);
    for (const std::string_view keyword : {"$ref", "allOf", "anyOf", "oneOf", "enum", "const"}) {
      if (!schema.has(keyword)) continue;
      if (auto status = check_alone(schema, keyword); !status) return pass_on(status);
      if (keyword == "$ref") return add_reference(from, schema);
      if (keyword == "enum" || keyword == "const") return add_constants(from, schema);
      return add_branches(from, schema, keyword);
    }
    auto types = document_.types_of(schema);
    if (!types) return pass_on(types);
    if (*types == kAllTypes) return json_.add_value(from);
    const StateId to = net_.add_state();
    for (const std::string_view type : *types) {
      if (type == "integer" && types->contains("number")) continue;  // among them
      const auto end = add_typed(from, schema, type);
      if (!end) return end;
      net_.add_epsilon(*end, to);
    }
    return to;
  }

  Behind add_typed(StateId from, const SchemaPart& schema, std::string_view type) {
    if (type == "object") return add_object(from, schema);
    if (type == "array") return add_array(from, schema);
    if (type == "string") return add_string(from, schema);
    if (type == "number") return add_number(from, schema, false);
    if (type == "integer") return add_number(from, schema, true);
    if (type == "null") return add_text(net_, from, "null");
    const StateId to = net_.add_state();
    for (const std::string_view text : {"true", "false"})
      net_.add_epsilon(add_text(net_, from, text), to);
    return to;
  }

  Behind add_reference(StateId from, const SchemaPart& schema) {
    const auto target = document_.target_of(schema);
    if (!target) return tl::unexpected<Error>(target.error());
    return add_rule_call(from, *target);
  }

  Behind add_branches(StateId from, const SchemaPart& schema, std::string_view keyword) {
    const auto branches = document_.list(schema, keyword);
    if (!branches) return tl::unexpected<Error>(branches.error());
    if (keyword == "allOf" && branches->size() > 1) {
      return unsupported(schema, "\"allOf\" with {} schemas; one is accepted, merge them",
                         branches->size());
    }
    if (keyword == "oneOf") {
      if (auto status = document_.check_distinct(schema, *branches); !status)
        return pass_on(status);
    }
    const StateId to = net_.add_state();
    for (const SchemaPart& branch : *branches) {
      const auto end = add(from, branch);
      if (!end) return end;
      net_.add_epsilon(*end, to);
    }
    return to;
  }

  Behind add_constants(StateId from, const SchemaPart& schema) {
    const auto constants = document_.constants_of(schema);
    if (!constants) return tl::unexpected<Error>(constants.error());
    const StateId to = net_.add_state();
    for (const OrderedJson* value : *constants)
      net_.add_epsilon(json_.add_literal(from, *value), to);
    return to;
  }

  // --- objects ---

  struct Member {
    std::string key;
    std::optional<SchemaPart> schema;  // unset: any value
    bool is_required = false;
  };

  Behind add_object(StateId from, const SchemaPart& schema) {
    std::optional<SchemaPart> others;  // of additional members; unset: any value
    bool may_have_others = false;
    if (schema.has("additionalProperties")) {
      others = schema.at("additionalProperties");
      if (!others->json->is_boolean() && !others->json->is_object())
        return invalid(*others, "need true, false or a schema");
      may_have_others = *others->json != OrderedJson(false);
    } else {
      may_have_others = !schema.has("properties") && !schema.has("required");
    }
    auto members = members_of(schema, others);
    if (!members) return pass_on(members);
    if (members->empty() && may_have_others && (!others || others->json->is_boolean()))
      return json_.add_object(from);

    // `none` is where no member was written yet, `some` where one was: then a comma comes first.
    StateId none = json_.add_space(add_text(net_, from, "{"));
    StateId some = net_.add_state();
    for (const Member& member : *members) {
      const StateId key = net_.add_state();
      net_.add_epsilon(none, key);
      net_.add_epsilon(json_.add_space(add_text(net_, some, ",")), key);
      const auto end = add_value_of_key(json_.add_quoted(key, member.key), member.schema);
      if (!end) return end;
      const StateId next_none = net_.add_state();
      const StateId next_some = net_.add_state();
      net_.add_epsilon(*end, next_some);
      if (!member.is_required) {
        net_.add_epsilon(none, next_none);
        net_.add_epsilon(some, next_some);
      }
      none = next_none;
      some = next_some;
    }
    if (may_have_others) {
      std::vector<std::string> keys;
      for (const Member& member : *members) keys.push_back(member.key);
      const StateId key = net_.add_state();
      net_.add_epsilon(none, key);
      net_.add_epsilon(json_.add_space(add_text(net_, some, ",")), key);
      const auto end = add_value_of_key(json_.add_key_other_than(key, keys), others);
      if (!end) return end;
      net_.add_epsilon(*end, some);
    }
    const StateId last = net_.add_state();
    net_.add_epsilon(none, last);
    net_.add_epsilon(json_.add_space(some), last);
    return add_text(net_, last, "}");
  }

  Behind add_value_of_key(StateId from, const std::optional<SchemaPart>& schema) {
    from = json_.add_space(add_text(net_, from, ":"));
    return schema ? add(from, *schema) : Behind(json_.add_value(from));
  }

  Result<std::vector<Member>> members_of(const SchemaPart& schema,
                                         const std::optional<SchemaPart>& others) {
    std::vector<Member> members;
    std::map<std::string, size_t> index;
    if (schema.has("properties")) {
      const SchemaPart properties = schema.at("properties");
      if (!properties.json->is_object()) return invalid(properties, "need an object of schemas");
      for (const auto& [key, value] : properties.json->items()) {
        index.emplace(key, members.size());
        members.push_back({key, SchemaPart{&value, properties.pointer_to(key)}, false});
      }
    }
    if (!schema.has("required")) return members;
    const SchemaPart required = schema.at("required");
    if (!required.json->is_array()) return invalid(required, "need an array of strings");
    for (const OrderedJson& key : *required.json) {
      if (!key.is_string()) return invalid(required, "need an array of strings");
      const auto& name = key.get_ref<const std::string&>();
      const auto [found, is_new] = index.emplace(name, members.size());
      if (is_new) {
        if (others && *others->json == OrderedJson(false)) {
          return invalid(required,
                         "\"{}\" is not among properties, and additionalProperties is false", name);
        }
        members.push_back({name, others, false});
      }
      members[found->second].is_required = true;
    }
    return members;
  }

  // --- arrays ---

  Behind add_array(StateId from, const SchemaPart& schema) {
    auto count = count_of(schema, "minItems", "maxItems");
    if (!count) return pass_on(count);
    std::vector<SchemaPart> prefix;
    if (schema.has("prefixItems")) {
      auto list = document_.list(schema, "prefixItems");
      if (!list) return pass_on(list);
      prefix = std::move(*list);
    }
    std::optional<SchemaPart> items;
    if (schema.has("items")) {
      items = schema.at("items");
      if (items->json->is_array())
        return unsupported(*items, "an array of schemas as \"items\"; write \"prefixItems\"");
    }
    const auto num_prefix = static_cast<int32_t>(prefix.size());
    if (items && *items->json == OrderedJson(false))
      count->max = count->max < 0 ? num_prefix : std::min(count->max, num_prefix);
    if (count->max >= 0 && count->min > count->max)
      return invalid(schema, "minItems {} is more than the {} items there can be", count->min,
                     count->max);
    return add_items(from, prefix, items, *count);
  }

  Behind add_items(StateId from, const std::vector<SchemaPart>& prefix,
                   const std::optional<SchemaPart>& items, Count count) {
    StateId at = json_.add_space(add_text(net_, from, "["));
    const StateId last = net_.add_state();
    int32_t num_written = 0;
    for (; num_written < static_cast<int32_t>(prefix.size()); ++num_written) {
      if (num_written >= count.min)
        net_.add_epsilon(num_written > 0 ? json_.add_space(at) : at, last);
      if (num_written == count.max) return add_text(net_, last, "]");
      if (num_written > 0) at = json_.add_space(add_text(net_, at, ","));
      const auto end = add(at, prefix[num_written]);
      if (!end) return end;
      at = *end;
    }
    const std::optional<RuleId> rule =
        items && items->json->is_object() ? std::optional(rule_of(*items)) : std::nullopt;
    const auto add_item = [&](StateId s) {
      if (!rule) return json_.add_value(s);
      const StateId to = net_.add_state();
      net_.add_call(s, *rule, to);
      return to;
    };
    const auto add_next_item = [&](StateId s) {
      return add_item(json_.add_space(add_text(net_, s, ",")));
    };
    if (num_written == 0 && count.max != 0) {  // the first one has no comma
      if (count.min == 0) net_.add_epsilon(at, last);
      at = add_item(at);
      num_written = 1;
    }
    const int32_t min = std::max(count.min - num_written, 0);
    const int32_t max = count.max < 0 ? -1 : count.max - num_written;
    net_.add_epsilon(json_.add_space(add_repeated(net_, at, min, max, false, add_next_item)), last);
    return add_text(net_, last, "]");
  }

  // --- strings and numbers ---

  Behind add_string(StateId from, const SchemaPart& schema) {
    auto count = count_of(schema, "minLength", "maxLength");
    if (!count) return pass_on(count);
    const bool has_count = count->min > 0 || count->max >= 0;
    const bool has_pattern = schema.has("pattern"), has_format = schema.has("format");
    if (has_count + has_pattern + has_format > 1) {
      return unsupported(schema,
                         "more than one of \"pattern\", \"format\" and a length; write the "
                         "pattern so that it bounds the length");
    }
    if (has_count) {
      if (count->max >= 0 && count->min > count->max)
        return invalid(schema, "minLength {} is above maxLength {}", count->min, count->max);
      return json_.add_string_of_length(from, count->min, count->max);
    }
    if (!has_pattern && !has_format) return json_.add_string(from);
    const SchemaPart text = schema.at(has_pattern ? "pattern" : "format");
    if (!text.json->is_string()) return invalid(text, "need a string");
    const auto& value = text.json->get_ref<const std::string&>();
    if (has_format) {
      const auto expression = expression_of_format(value);
      if (!expression) {
        return unsupported(text, "the format \"{}\"; known are {}", value.substr(0, 100),
                           fmt::join(known_formats(), ", "));
      }
      const auto regex = parse_regex(*expression);
      BRAID_CHECK(regex.has_value());
      return json_.add_string_matching(from, *regex);
    }
    const auto regex = parse_regex(value);
    if (!regex) return fail(regex.error().code, "{}: {}", text.pointer, regex.error().message);
    return json_.add_string_with(from, *regex);
  }

  Behind add_number(StateId from, const SchemaPart& schema, bool is_integer) {
    auto low = bound_of(schema, "minimum", "exclusiveMinimum", true);
    if (!low) return pass_on(low);
    auto high = bound_of(schema, "maximum", "exclusiveMaximum", false);
    if (!high) return pass_on(high);
    return json_.add_number_between(from, *low, *high, is_integer);
  }

  Result<std::optional<DecimalBound>> bound_of(const SchemaPart& schema, std::string_view inclusive,
                                               std::string_view exclusive, bool is_low) {
    std::optional<DecimalBound> bound;
    std::optional<double> tightest;
    for (const std::string_view keyword : {inclusive, exclusive}) {
      if (!schema.has(keyword)) continue;
      const SchemaPart part = schema.at(keyword);
      if (!part.json->is_number()) return invalid(part, "need a number");
      const auto value = part.json->get<double>();
      // Of two equal bounds the exclusive one, which comes second, holds.
      if (tightest && (is_low ? value < *tightest : value > *tightest)) continue;
      tightest = value;
      bound = DecimalBound::of(*part.json, keyword == inclusive);
      if (!bound) {
        return unsupported(
            part, "the bound {}; accepted are up to 18 digits before the point and 30 behind it",
            part.json->dump());
      }
    }
    return bound;
  }

  Result<Count> count_of(const SchemaPart& schema, std::string_view min, std::string_view max) {
    Count count;
    for (const auto& [keyword, value] : {std::pair{min, &count.min}, std::pair{max, &count.max}}) {
      if (!schema.has(keyword)) continue;
      const SchemaPart part = schema.at(keyword);
      const OrderedJson& json = *part.json;
      if (!json.is_number_unsigned() || json.get<uint64_t>() > kMaxCount)
        return invalid(part, "need an integer from 0 to {}", kMaxCount);
      *value = json.get<int32_t>();
    }
    return count;
  }

  NetworkBuilder& net_;
  JsonText json_;
  const SchemaDocument& document_;
  std::map<const OrderedJson*, RuleId> rules_;
  std::vector<std::pair<RuleId, SchemaPart>> unwritten_;
};

Result<size_t> count_members(const Json& json, size_t count, size_t limit) {
  if (json.is_object()) count += json.size();
  if (count > limit)
    return fail(ErrorCode::kInvalidArgument, "it has more than {} members in all", limit);
  if (!json.is_structured()) return count;
  for (const Json& part : json) {
    auto counted = count_members(part, count, limit);
    if (!counted) return counted;
    count = *counted;
  }
  return count;
}

}  // namespace

Status add_json_schema(NetworkBuilder& net, std::string_view schema, const SchemaLimits& limits) {
  // Once for what is wrong with it, and once for the order of its members; looking one up there
  // takes time by their number, so it is bounded in between.
  const auto checked =
      parse_json(schema, {.max_bytes = limits.max_bytes, .max_depth = limits.max_depth});
  if (!checked) return fail(ErrorCode::kInvalidArgument, "{}", checked.error().message);
  const auto num_members = count_members(*checked, 0, static_cast<size_t>(limits.max_members));
  if (!num_members) return tl::unexpected<Error>(num_members.error());
  const SchemaDocument document(OrderedJson::parse(schema));
  return SchemaWriter(net, document).write();
}

}  // namespace braid::grammar

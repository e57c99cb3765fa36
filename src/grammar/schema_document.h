#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "grammar/json_text.h"

namespace braid::grammar {

// A place in a schema's text. The pointer, as "#/properties/name", is for messages.
struct SchemaPart {
  const OrderedJson* json;
  std::string pointer;

  bool has(std::string_view keyword) const {
    return json->is_object() && json->contains(std::string(keyword));
  }
  std::string pointer_to(std::string_view key) const;
  SchemaPart at(std::string_view keyword) const {
    return {&json->at(std::string(keyword)), pointer_to(keyword)};
  }
};

template <class... Args>
tl::unexpected<Error> invalid(const SchemaPart& part, fmt::format_string<Args...> format,
                              Args&&... args) {
  return fail(ErrorCode::kInvalidArgument, "{}: {}", part.pointer,
              fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
tl::unexpected<Error> unsupported(const SchemaPart& part, fmt::format_string<Args...> format,
                                  Args&&... args) {
  return fail(ErrorCode::kUnsupported, "{}: {} is not supported", part.pointer,
              fmt::format(format, std::forward<Args>(args)...));
}

using Types = std::set<std::string_view>;
extern const Types kAllTypes;

// kUnsupported for a keyword that this build would have to ignore, kInvalidArgument where the part
// is no schema.
Status check_keywords(const SchemaPart& schema);

// kUnsupported where a keyword that decides alone has others beside it that say something too.
Status check_alone(const SchemaPart& schema, std::string_view keyword);

// What schemas say about each other.
class SchemaDocument {
 public:
  explicit SchemaDocument(OrderedJson root) : root_(std::move(root)) {}

  const OrderedJson& root() const { return root_; }

  // Where "$ref" points to. Only places of this document can be meant.
  Result<SchemaPart> target_of(const SchemaPart& schema) const;

  // The values of "enum" or "const" that "type", if it is there, allows; at least one.
  Result<std::vector<const OrderedJson*>> constants_of(const SchemaPart& schema) const;

  // By "type", else by the keywords there are, else all. Views are of static strings.
  Result<Types> types_of(const SchemaPart& schema) const;

  // A keyword's array of schemas, at least one.
  Result<std::vector<SchemaPart>> list(const SchemaPart& schema, std::string_view keyword) const;

  // kUnsupported unless a value can be valid against one of the branches only: they have different
  // types, different constants, or a required property that has.
  Status check_distinct(const SchemaPart& schema, const std::vector<SchemaPart>& branches) const;

 private:
  bool are_distinct(SchemaPart a, SchemaPart b, int depth) const;
  bool follow(SchemaPart& part) const;

  OrderedJson root_;
};

}  // namespace braid::grammar

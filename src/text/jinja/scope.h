#pragma once

#include <deque>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace braid::text::jinja {

// Variables of a template, a macro, a loop round or a with block.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> variables;
  bool is_captured = false;  // a macro made here may still read it later

  const Value* find(std::string_view name) const {
    for (const auto& [key, value] : variables) {
      if (key == name) return &value;
    }
    return nullptr;
  }
  void set(std::string_view name, Value value) {
    for (auto& [key, old] : variables) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }
};

// All scopes of a rendering. They stay in place, and those that nobody can read any more are used
// again.
class Scopes {
 public:
  Scope& push(Scope& parent);
  // After a Failure scopes are not popped: nothing runs any more.
  void pop(Scope& scope);
  // Keeps a scope and those around it until the rendering ends.
  static void capture(Scope& scope);

 private:
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_;
};

}  // namespace braid::text::jinja

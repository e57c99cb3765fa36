#include "text/jinja/scope.h"

namespace braid::text::jinja {

Scope& Scopes::push(Scope& parent) {
  if (free_.empty()) free_.push_back(&scopes_.emplace_back());
  Scope& scope = *free_.back();
  free_.pop_back();
  scope.parent = &parent;
  return scope;
}

void Scopes::pop(Scope& scope) {
  if (scope.is_captured) return;
  scope.variables.clear();
  free_.push_back(&scope);
}

void Scopes::capture(Scope& scope) {
  for (Scope* s = &scope; s && !s->is_captured; s = s->parent) s->is_captured = true;
}

}  // namespace braid::text::jinja

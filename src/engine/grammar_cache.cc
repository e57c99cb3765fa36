#include "engine/grammar_cache.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"
#include "grammar/compile.h"

namespace braid {
namespace {

std::string_view name(GrammarKind kind) {
  switch (kind) {
    case GrammarKind::kRegex:
      return "regex";
    case GrammarKind::kJsonSchema:
      return "json_schema";
    case GrammarKind::kJsonObject:
      return "json_object";
  }
  BRAID_UNREACHABLE(static_cast<int>(kind));
}

grammar::CompiledGrammar compile(const OutputGrammar& source,
                                 std::shared_ptr<const grammar::Vocabulary> vocabulary) {
  switch (source.kind) {
    case GrammarKind::kRegex:
      return grammar::compile_regex(source.text, std::move(vocabulary));
    case GrammarKind::kJsonSchema:
      return grammar::compile_json_schema(source.text, std::move(vocabulary));
    case GrammarKind::kJsonObject:
      return grammar::compile_json_object(std::move(vocabulary));
  }
  BRAID_UNREACHABLE(static_cast<int>(source.kind));
}

}  // namespace

std::shared_ptr<grammar::Grammar> GrammarCache::find(const OutputGrammar& source) {
  const auto found = std::ranges::find(entries_, source, &Entry::source);
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return found->grammar;
}

size_t GrammarCache::bytes_in_use() {
  std::erase_if(all_, [](const auto& grammar) { return grammar.expired(); });
  size_t bytes = 0;
  for (const auto& weak : all_) {
    if (const auto grammar = weak.lock()) bytes += grammar->bytes();
  }
  return bytes;
}

Result<grammar::Matcher> GrammarCache::matcher(const OutputGrammar& source) {
  if (!vocabulary_) {
    return fail(ErrorCode::kUnsupported,
                "a {} grammar needs a tokenizer, the model's folder has none", name(source.kind));
  }
  std::shared_ptr<grammar::Grammar> known;
  {
    const std::lock_guard lock(mutex_);
    known = find(source);
  }
  if (!known) {
    // Outside of the lock: others are not kept waiting. Who compiles the same meanwhile loses a
    // little time.
    auto compiled = compile(source, vocabulary_);
    if (!compiled) return pass_on(compiled, std::string(name(source.kind)));
    known = std::move(*compiled);
    grammar::Matcher first(known);
    const auto mask = first.mask();
    if (!mask) {
      return fail(ErrorCode::kInvalidArgument, "{}: {}", name(source.kind), mask.error().message);
    }
    const std::lock_guard lock(mutex_);
    if (auto other = find(source)) {
      known = std::move(other);
    } else {
      while (bytes_in_use() + known->bytes() > max_bytes_) {
        if (entries_.empty()) {
          return fail(ErrorCode::kResourceExhausted,
                      "the grammars of the requests at hand take {} MiB, which is near the limit; "
                      "try again later",
                      bytes_in_use() >> 20);
        }
        entries_.pop_back();
      }
      all_.push_back(known);
      entries_.push_front({source, known});
      if (entries_.size() > kMaxGrammars) entries_.pop_back();
    }
  }
  return grammar::Matcher(std::move(known));
}

}  // namespace braid

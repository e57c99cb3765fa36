// Time of token masks over a real vocabulary.
//
//     braid_grammar_bench TOKENIZER_FOLDER
//
// For each grammar: compile; the first mask; then replies of random allowed tokens, once with
// nothing known and once more with the same tokens.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "grammar/compile.h"
#include "grammar/grammar.h"
#include "text/tokenizer.h"

namespace {

using namespace braid;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

struct Times {
  std::vector<double> ms;

  std::string row() {
    std::sort(ms.begin(), ms.end());
    const auto at = [&](double share) {
      return ms[static_cast<size_t>(share * static_cast<double>(ms.size() - 1))];
    };
    return fmt::format("{:8.4f} {:8.4f} {:8.4f}", at(0.5), at(0.9), at(1));
  }
};

struct Named {
  const char* name;
  grammar::CompiledGrammar (*compile)(std::shared_ptr<const grammar::Vocabulary>);
};

const Named kGrammars[] = {
    {"json_object", [](auto v) { return grammar::compile_json_object(std::move(v)); }},
    {"schema, closed object",
     [](auto v) {
       return grammar::compile_json_schema(
           R"({"type": "object", "required": ["name", "age", "tags", "kind"], "properties": {
               "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
               "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
               "kind": {"enum": ["person", "robot", "animal"]}}})",
           std::move(v));
     }},
    {"schema, recursive",
     [](auto v) {
       return grammar::compile_json_schema(
           R"({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "required": ["value"],
               "properties": {"value": {"type": "string"}, "children": {"type": "array",
               "items": {"$ref": "#/$defs/n"}}}}}})",
           std::move(v));
     }},
    {"schema, maxLength 500",
     [](auto v) {
       return grammar::compile_json_schema(R"({"type": "string", "maxLength": 500})", std::move(v));
     }},
    {"schema, map of anything",
     [](auto v) {
       return grammar::compile_json_schema(
           R"({"properties": {"id": {"type": "integer"}}, "additionalProperties": true})",
           std::move(v));
     }},
    {"regex, any text .*",
     [](auto v) { return grammar::compile_regex("(.|\\n)*x", std::move(v)); }},
    {"regex, date",
     [](auto v) { return grammar::compile_regex("\\d{4}-\\d\\d-\\d\\d", std::move(v)); }},
    {"regex, words",
     [](auto v) { return grammar::compile_regex("(\\w{1,20}[ ,.]){1,100}", std::move(v)); }},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: braid_grammar_bench TOKENIZER_FOLDER\n");
    return 2;
  }
  const auto tokenizer = text::Tokenizer::open(argv[1]);
  if (!tokenizer) {
    fmt::print(stderr, "{}\n", tokenizer.error().message);
    return 1;
  }
  auto begin = Clock::now();
  const auto vocabulary =
      std::make_shared<const grammar::Vocabulary>((*tokenizer)->vocab_size(), [&](int32_t id) {
        return (*tokenizer)->is_special(id) ? std::string_view() : (*tokenizer)->piece(id);
      });
  fmt::print("{} tokens, {} nodes, longest {} bytes, made in {:.0f} ms\n", vocabulary->size(),
             vocabulary->num_nodes(), vocabulary->max_token_bytes(), ms_since(begin));
  fmt::print("{:26} {:>8} {:>8}   {:^26}   {:^26}\n", "ms", "compile", "first",
             "mask, new: p50 p90 max", "again: p50 p90 max");
  for (const Named& named : kGrammars) {
    begin = Clock::now();
    const auto compiled = named.compile(vocabulary);
    const double compile_ms = ms_since(begin);
    if (!compiled) {
      fmt::print(stderr, "{}: {}\n", named.name, compiled.error().message);
      return 1;
    }
    double first_ms = 0;
    Times times[2];
    for (Times& run : times) {
      for (uint64_t seed = 0; seed < 8; ++seed) {
        std::mt19937_64 random(seed);
        grammar::Matcher matcher(*compiled);
        for (int i = 0; i < 200 && !matcher.is_over(); ++i) {
          begin = Clock::now();
          const auto mask = matcher.mask();
          const double ms = ms_since(begin);
          if (!mask) {
            fmt::print(stderr, "{}: {}\n", named.name, mask.error().message);
            return 1;
          }
          if (first_ms == 0) first_ms = ms;
          run.ms.push_back(ms);
          int32_t token = 0;
          do {
            token = static_cast<int32_t>(random() % static_cast<uint64_t>(vocabulary->size()));
            // Few tokens are allowed as a rule: the next one that is.
            for (int32_t n = 0; n < vocabulary->size() && !(*mask)->allows(token); ++n)
              token = (token + 1) % vocabulary->size();
          } while (!matcher.push(token));
        }
      }
    }
    fmt::print("{:26} {:8.2f} {:8.2f}   {}   {}\n", named.name, compile_ms, first_ms,
               times[0].row(), times[1].row());
  }
  return 0;
}

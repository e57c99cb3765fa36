#include "grammar/compile.h"

#include <utility>

#include "grammar/fragments.h"
#include "grammar/json_schema.h"
#include "grammar/json_text.h"
#include "grammar/regex_syntax.h"

namespace braid::grammar {
namespace {

CompiledGrammar finish(const NetworkBuilder& net, std::shared_ptr<const Vocabulary> vocabulary) {
  auto network = net.build(vocabulary->single_bytes(), vocabulary->max_token_bytes());
  if (!network) return pass_on(network);
  return std::make_shared<Grammar>(std::move(*network), std::move(vocabulary));
}

}  // namespace

CompiledGrammar compile_regex(std::string_view regex,
                              std::shared_ptr<const Vocabulary> vocabulary) {
  const auto parsed = parse_regex(regex);
  if (!parsed) return tl::unexpected<Error>(parsed.error());
  NetworkBuilder net;
  const RuleId root = net.add_rule("the expression");
  const StateId start = net.add_state();
  net.set_start(root, start);
  net.set_final(add_regex(net, start, *parsed, Encoding::kUtf8));
  return finish(net, std::move(vocabulary));
}

CompiledGrammar compile_json_schema(std::string_view schema,
                                    std::shared_ptr<const Vocabulary> vocabulary) {
  NetworkBuilder net;
  if (auto status = add_json_schema(net, schema); !status) return pass_on(status);
  return finish(net, std::move(vocabulary));
}

CompiledGrammar compile_json_object(std::shared_ptr<const Vocabulary> vocabulary) {
  NetworkBuilder net;
  JsonText json(net);
  const RuleId root = net.add_rule("an object");
  const StateId start = net.add_state();
  net.set_start(root, start);
  net.set_final(json.add_object(start));
  json.finish();
  return finish(net, std::move(vocabulary));
}

}  // namespace braid::grammar

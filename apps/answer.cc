#include "apps/answer.h"

#include <fmt/format.h>

#include "apps/table.h"
#include "base/json.h"

namespace braid::apps {
namespace {

Json to_json(const std::vector<TokenLogprob>& entries) {
  Json json = Json::array();
  for (const TokenLogprob& entry : entries) {
    Json top = Json::array();
    for (const auto& [token, logprob] : entry.top)
      top.push_back({{"token", token}, {"logprob", logprob}});
    json.push_back(
        {{"token", entry.token}, {"logprob", entry.logprob}, {"rank", entry.rank}, {"top", top}});
  }
  return json;
}

// A token's text in quotes, or its id where the model has no tokenizer.
std::string shown_token(const Engine& engine, int32_t token) {
  const auto text = engine.detokenize(std::vector<int32_t>{token}, /*skip_special_tokens=*/false);
  if (!text) return fmt::format("#{}", token);
  return printable(Json(*text).dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string render(const std::vector<TokenLogprob>& entries, const char* title,
                   const Engine& engine) {
  if (entries.empty()) return {};
  Table table({"token", title, "logprob", "rank", "most likely"});
  for (const TokenLogprob& entry : entries) {
    std::string top;
    for (const auto& [token, logprob] : entry.top) {
      top +=
          fmt::format("{}{} {:.3f}", top.empty() ? "" : "  ", shown_token(engine, token), logprob);
    }
    table.add({fmt::format("{}", entry.token), shown_token(engine, entry.token),
               fmt::format("{:.3f}", entry.logprob), fmt::format("{}", entry.rank), top});
  }
  return fmt::format("\n{}", table.to_string());
}

}  // namespace

Json to_json(const Answer& answer) {
  Json json = {{"adapter", answer.adapter.empty() ? Json() : Json(answer.adapter)},
               {"prompt", answer.prompt},
               {"text", answer.text},
               {"tokens", answer.tokens},
               {"finish_reason", name(answer.reason)},
               {"usage",
                {{"prompt_tokens", answer.prompt_tokens},
                 {"cached_tokens", answer.cached_tokens},
                 {"completion_tokens", answer.tokens.size()}}}};
  if (!answer.error.empty()) json["error"] = answer.error;
  if (answer.request.sampling.logprobs) json["logprobs"] = to_json(answer.logprobs);
  if (answer.request.sampling.prompt_logprobs)
    json["prompt_logprobs"] = to_json(answer.prompt_logprobs);
  return json;
}

std::string render_prompt(const Answer& answer, const Terminal& terminal) {
  const std::string prompt = answer.prompt.is_string() ? answer.prompt.get<std::string>()
                                                       : "tokens " + answer.prompt.dump();
  return bold(terminal, wrap(printable(prompt), terminal.columns)) + "\n";
}

std::string shown_reply(const Answer& answer, const Engine& engine) {
  if (engine.detokenize(answer.tokens)) return printable(answer.text);
  return "tokens " + Json(answer.tokens).dump();
}

std::string render_answer(const Answer& answer, const Engine& engine, const Terminal& terminal) {
  const std::string name = answer.adapter.empty() ? "base" : answer.adapter;
  std::string out = green(terminal, printable("[" + name + "]")) + "\n";
  if (answer.error.empty() || !answer.tokens.empty())
    out += wrap(shown_reply(answer, engine), terminal.columns) + "\n";
  if (!answer.error.empty()) out += red(terminal, printable(answer.error)) + "\n";
  return out;
}

std::string render_logprobs(const Answer& answer, const Engine& engine) {
  return render(answer.prompt_logprobs, "of the prompt", engine) +
         render(answer.logprobs, "of the reply", engine);
}

}  // namespace braid::apps

// The tokenizer over HTTP: /tokenize, /detokenize, /tokenizer_info.

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "server/http/exchange.h"
#include "server/json_fields.h"
#include "server/json_text.h"
#include "server/routes.h"
#include "server/services.h"
#include "server/worker.h"

namespace braid::server {
namespace {

namespace asio = boost::asio;

HttpResponse tokenize(const Services& services, const HttpRequest& request) {
  auto body = parse_body(request.body);
  if (!body) return error_response(body.error());
  std::vector<int32_t> tokens;
  if (body->is_object() && body->contains("messages")) {
    auto chat = read_chat_request(*body, services.backend, services.defaults);
    if (!chat) return error_response(chat.error());
    tokens = std::move(chat->prompts.front().tokens);
  } else {
    JsonFields fields(*body);
    std::string prompt;
    bool adds_special = true;
    if (fields.find("prompt") == nullptr)
      fields.complain("prompt", "prompt is missing; give a string, or messages");
    fields.read_string("prompt", prompt);
    fields.read_bool("add_special_tokens", adds_special);
    if (fields.error()) return error_response(*fields.error());
    auto made = services.backend.tokenize(prompt, adds_special);
    if (!made) return error_response(to_api_error(made.error(), "prompt"));
    tokens = std::move(*made);
  }
  Json out = {{"count", tokens.size()},
              {"max_model_len", services.backend.max_context()},
              {"tokens", tokens}};
  if (body->value("return_token_strs", Json()) == true) {
    Json texts = Json::array();
    for (const int32_t token : tokens) texts.push_back(services.backend.token_bytes(token));
    out["token_strs"] = std::move(texts);
  }
  return {.body = json_text(out)};
}

HttpResponse detokenize(const Services& services, const HttpRequest& request) {
  auto body = parse_body(request.body);
  if (!body) return error_response(body.error());
  JsonFields fields(*body);
  std::vector<int32_t> tokens;
  if (fields.find("tokens") == nullptr)
    fields.complain("tokens", "tokens is missing; give a list of token ids");
  fields.read("tokens", tokens, "a list of token ids");
  for (const int32_t token : tokens) {
    if (token < 0 || token >= services.backend.vocab_size()) {
      fields.complain("tokens", fmt::format("token {} is outside of the vocabulary, 0 to {}", token,
                                            services.backend.vocab_size() - 1));
      break;
    }
  }
  if (fields.error()) return error_response(*fields.error());
  auto text = services.backend.detokenize(tokens, false);
  if (!text) return error_response(to_api_error(text.error(), "tokens"));
  return {.body = json_text({{"prompt", std::move(*text)}})};
}

// Large texts are turned beside the IO thread.
asio::awaitable<void> answer_aside(HttpResponse (*respond)(const Services&, const HttpRequest&),
                                   Services& services, Exchange& exchange) {
  const HttpRequest& request = exchange.request();
  HttpResponse response = co_await run_on(
      services.parser, [respond, &services, &request] { return respond(services, request); });
  co_await exchange.send(std::move(response));
}

// tokenizer_config.json, with the chat template in it and special tokens as strings. Null: the
// model has none.
Json tokenizer_info(const std::filesystem::path& model_dir) {
  auto info = read_json_file(model_dir / "tokenizer_config.json");
  if (!info || !info->is_object()) return nullptr;
  constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
  if (auto text = read_file(model_dir / "chat_template.jinja", kMaxTemplateBytes))
    (*info)["chat_template"] = *text;
  for (const char* key : {"bos_token", "eos_token", "pad_token", "unk_token"}) {
    Json& token = (*info)[key];  // null where it is absent
    if (token.is_object() && token.contains("content")) token = Json(token["content"]);
  }
  if (!info->contains("chat_template")) (*info)["chat_template"] = nullptr;
  return std::move(*info);
}

}  // namespace

void add_text_routes(Router& router, Services& services) {
  const auto add = [&](const char* path,
                       HttpResponse (*respond)(const Services&, const HttpRequest&)) {
    router.add({.method = "POST",
                .path = path,
                .access = Access::kApi,
                .handler = [respond, &services](Exchange& exchange) {
                  return answer_aside(respond, services, exchange);
                }});
  };
  add("/tokenize", tokenize);
  add("/detokenize", detokenize);
  router.add("GET", "/tokenizer_info", Access::kApi,
             [info = tokenizer_info(services.config.model_dir)](const HttpRequest&) {
               if (info.is_null()) {
                 return error_response(
                     {.status = 404, .message = "the model has no tokenizer_config.json"});
               }
               return HttpResponse{.body = json_text(info)};
             });
}

}  // namespace braid::server

// What the server is: models, health, version, facts.

#include <fmt/format.h>

#include <chrono>

#include "base/json.h"
#include "server/adapter_choice.h"
#include "server/generation.h"
#include "server/http/exchange.h"
#include "server/json_text.h"
#include "server/routes.h"
#include "server/services.h"

namespace braid::server {
namespace {

namespace asio = boost::asio;

Json model_card(const Services& services, const std::string& id, int64_t created, const Json& root,
                const Json& parent) {
  return {{"id", id},
          {"object", "model"},
          {"created", created},
          {"owned_by", "braid"},
          {"root", root},
          {"parent", parent},
          {"max_model_len", services.backend.max_context()},
          {"permission", Json::array()}};
}

Json adapter_card(const Services& services, const AdapterInfo& info) {
  using std::chrono::system_clock;
  const bool is_loaded = info.loaded_at != system_clock::time_point{};
  return model_card(services, info.name,
                    is_loaded ? system_clock::to_time_t(info.loaded_at) : services.start_time,
                    info.source.empty() ? Json() : Json(info.source),
                    services.config.model_names.front());
}

// The base model first: clients take the first one for the model.
Json model_cards(const Services& services) {
  Json cards = Json::array();
  for (const std::string& name : services.config.model_names) {
    cards.push_back(model_card(services, name, services.start_time,
                               services.config.model_dir.string(), nullptr));
  }
  for (const AdapterInfo& info : services.backend.adapters())
    cards.push_back(adapter_card(services, info));
  return cards;
}

HttpResponse one_model(const Services& services, const HttpRequest& request) {
  for (Json& card : model_cards(services)) {
    if (card["id"] == request.tail) return {.body = json_text(card)};
  }
  return error_response(no_such_model(request.tail));
}

HttpResponse server_info(const Services& services) {
  const EngineStats stats = services.backend.stats();
  const Json state = {{"num_running_reqs", stats.running},
                      {"num_queue_reqs", stats.queued},
                      {"steps", stats.steps},
                      {"prompt_tokens", stats.prompt_tokens},
                      {"cached_tokens", stats.cached_tokens},
                      {"generated_tokens", stats.generated_tokens},
                      {"kv_blocks_used", stats.kv_blocks_used},
                      {"kv_blocks_total", stats.kv_blocks_total},
                      {"adapter_slots_used", stats.adapter_slots_used},
                      {"adapter_slots_total", stats.adapter_slots_total}};
  const Json body = {{"version", BRAID_VERSION},
                     {"model_path", services.config.model_dir.string()},
                     {"tokenizer_path", services.config.model_dir.string()},
                     {"served_model_name", services.config.model_names.front()},
                     {"context_length", services.backend.max_context()},
                     {"internal_states", Json::array({state})}};
  return {.body = json_text(body)};
}

HttpResponse model_info(const Services& services) {
  const Json body = {{"model_path", services.config.model_dir.string()},
                     {"tokenizer_path", services.config.model_dir.string()},
                     {"is_generation", true},
                     {"served_model_name", services.config.model_names.front()},
                     {"max_model_len", services.backend.max_context()},
                     {"vocab_size", services.backend.vocab_size()},
                     {"weight_version", "default"}};
  return {.body = json_text(body)};
}

// One token through the engine.
asio::awaitable<void> health_generate(Services& services, Exchange& exchange) {
  const auto executor = co_await asio::this_coro::executor;
  Generation generation(services.backend, services.hub, executor, "health_generate");
  std::vector<Request> requests(1);
  requests[0].prompt = {0};
  requests[0].sampling = {.temperature = 0, .max_tokens = 1};
  std::optional<ApiError> error = generation.start(std::move(requests));
  while (!error && generation.has_more()) {
    co_await generation.wait();
    for (const auto& [choice, event] : generation.take()) {
      if (event.reason == FinishReason::kError)
        error = ApiError{.status = 503, .message = event.error};
    }
  }
  if (error) {
    error->status = 503;
    co_await exchange.send(error_response(*error));
  } else {
    HttpResponse response = {.content_type = ""};
    co_await exchange.send(std::move(response));
  }
}

}  // namespace

void add_model_routes(Router& router, Services& services) {
  router.add("GET", "/v1/models", Access::kApi, [&services](const HttpRequest&) -> HttpResponse {
    return {.body = json_text({{"object", "list"}, {"data", model_cards(services)}})};
  });
  router.add("GET", "/v1/models/", Access::kApi,
             [&services](const HttpRequest& request) { return one_model(services, request); });
  router.add("GET", "/health", Access::kOpen, [&services](const HttpRequest&) -> HttpResponse {
    if (services.is_draining)
      return error_response({.status = 503, .message = "the server is shutting down"});
    return {.content_type = ""};
  });
  router.add(
      {.method = "GET",
       .path = "/health_generate",
       .access = Access::kApi,
       .handler = [&services](Exchange& exchange) { return health_generate(services, exchange); }});
  router.add("GET", "/version", Access::kOpen, [](const HttpRequest&) -> HttpResponse {
    return {.body = json_text({{"version", BRAID_VERSION}})};
  });
  for (const char* path : {"/model_info", "/get_model_info"}) {
    router.add("GET", path, Access::kApi,
               [&services](const HttpRequest&) { return model_info(services); });
  }
  for (const char* path : {"/server_info", "/get_server_info"}) {
    router.add("GET", path, Access::kApi,
               [&services](const HttpRequest&) { return server_info(services); });
  }
}

}  // namespace braid::server

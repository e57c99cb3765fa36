// Adapters over HTTP: vLLM's and SGLang's ways to load and unload, and our own to send one in the
// body, list and pin. Reading and checking happens on the loader's thread.

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "base/json.h"
#include "server/adapter_requests.h"
#include "server/http/exchange.h"
#include "server/json_fields.h"
#include "server/json_text.h"
#include "server/routes.h"
#include "server/services.h"
#include "server/worker.h"

namespace braid::server {
namespace {

namespace asio = boost::asio;

using Loaded = ApiResult<AdapterInfo>;

// Blocks for as long as the files take.
Loaded load_now(Backend& backend, const AdapterLoad& load) {
  auto id = load.folder.empty()
                ? backend.add_adapter_bytes(
                      load.name, {.config_json = load.config_json, .safetensors = load.safetensors},
                      load.options)
                : backend.add_adapter(load.name, load.folder, load.options);
  if (!id) return tl::unexpected<ApiError>(to_api_error(id.error(), "lora_name"));
  auto info = backend.adapter(*id);
  if (!info) return tl::unexpected<ApiError>(to_api_error(info.error(), "lora_name"));
  return std::move(*info);
}

template <class Read>
asio::awaitable<Loaded> load(Services& services, Exchange& exchange, Read read) {
  Backend& backend = services.backend;
  Loaded loaded = co_await run_on(services.loader, [&backend, read]() -> Loaded {
    ApiResult<AdapterLoad> wanted = read();
    if (!wanted) return tl::unexpected<ApiError>(std::move(wanted.error()));
    return load_now(backend, *wanted);
  });
  if (loaded) {
    exchange.record().adapter = loaded->name;
  } else {
    exchange.record().error = loaded.error().message;
  }
  co_return loaded;
}

ApiResult<std::string> unload(Services& services, Exchange& exchange, const std::string& name) {
  const auto id = services.backend.find_adapter(name);
  if (!id) {
    return tl::unexpected<ApiError>(
        {.status = 404,
         .message = fmt::format("The lora adapter '{}' cannot be found.", name.substr(0, 256)),
         .param = "lora_name"});
  }
  if (auto removed = services.backend.remove_adapter(*id); !removed)
    return tl::unexpected<ApiError>(to_api_error(removed.error(), "lora_name"));
  exchange.record().adapter = name;
  return name;
}

double unix_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

Json adapter_json(const Services& services, const AdapterInfo& info) {
  Json out = {{"name", info.name},
              {"path", info.source.empty() ? Json() : Json(info.source)},
              {"pinned", info.pinned},
              {"tier", name(info.tier)},
              {"version", info.version},
              {"hash", info.hash},
              {"bytes", info.bytes},
              {"rank", info.rank},
              {"running", info.counts.running},
              {"waiting", info.counts.waiting},
              {"requests", info.counts.requests},
              {"generated_tokens", info.counts.generated_tokens},
              {"loads", info.loads},
              {"evictions", info.evictions},
              {"load_seconds", info.load_seconds},
              {"loaded_at", unix_seconds(info.loaded_at)},
              {"last_used", unix_seconds(info.last_used)}};
  if (auto report = services.backend.adapter_report(info.id)) {
    out["layout"] = report->layout;
    out["targets"] = report->targets;
    out["warnings"] = report->warnings;
  }
  return out;
}

Json adapter_list(const Services& services) {
  Json list = Json::array();
  for (const AdapterInfo& info : services.backend.adapters())
    list.push_back(adapter_json(services, info));
  return list;
}

// --- vLLM: plain text when it went well
// -----------------------------------------------------------

HttpResponse plain(std::string text) {
  return {.content_type = "text/plain; charset=utf-8", .body = std::move(text)};
}

asio::awaitable<void> vllm_load(Services& services, Exchange& exchange) {
  const auto read = [&services, &exchange] {
    return read_load_request(exchange.request().body, services.config);
  };
  const Loaded loaded = co_await load(services, exchange, read);
  HttpResponse response =
      loaded ? plain(fmt::format("Success: LoRA adapter '{}' added successfully.", loaded->name))
             : error_response(loaded.error());
  co_await exchange.send(std::move(response));
}

asio::awaitable<void> vllm_unload(Services& services, Exchange& exchange) {
  auto done = read_lora_name(exchange.request().body).and_then([&](const std::string& name) {
    return unload(services, exchange, name);
  });
  HttpResponse response =
      done ? plain(fmt::format("Success: LoRA adapter '{}' removed successfully.", *done))
           : error_response(done.error());
  co_await exchange.send(std::move(response));
}

// --- SGLang: one kind of JSON reply for all
// -------------------------------------------------------

HttpResponse sglang_reply(const Services& services, const ApiError* error) {
  Json loaded = Json::object();
  for (const AdapterInfo& info : services.backend.adapters()) loaded[info.name] = info.source;
  const Json body = {{"success", error == nullptr},
                     {"error_message", error == nullptr ? "" : error->message},
                     {"loaded_adapters", std::move(loaded)}};
  HttpResponse response = {.body = json_text(body)};
  // SGLang's clients know one status for all that can be wrong with an adapter.
  if (error != nullptr) response.status = error->status == 404 ? 400 : error->status;
  return response;
}

asio::awaitable<void> sglang_load(Services& services, Exchange& exchange) {
  const auto read = [&services, &exchange] {
    return read_load_request(exchange.request().body, services.config);
  };
  const Loaded loaded = co_await load(services, exchange, read);
  co_await exchange.send(sglang_reply(services, loaded ? nullptr : &loaded.error()));
}

asio::awaitable<void> sglang_load_tensors(Services& services, Exchange& exchange) {
  const auto read = [&services, &exchange] {
    return read_tensors_request(exchange.request().body, services.config);
  };
  const Loaded loaded = co_await load(services, exchange, read);
  co_await exchange.send(sglang_reply(services, loaded ? nullptr : &loaded.error()));
}

asio::awaitable<void> sglang_unload(Services& services, Exchange& exchange) {
  const auto done = read_lora_name(exchange.request().body).and_then([&](const std::string& name) {
    return unload(services, exchange, name);
  });
  co_await exchange.send(sglang_reply(services, done ? nullptr : &done.error()));
}

// --- our own ------------------------------------------------------------------------------------

asio::awaitable<void> put_adapter(Services& services, Exchange& exchange) {
  const auto read = [&services, &exchange] {
    return read_upload(exchange.request(), services.config);
  };
  const Loaded loaded = co_await load(services, exchange, read);
  HttpResponse response;
  if (loaded) {
    response.body = json_text(adapter_json(services, *loaded));
  } else {
    response = error_response(loaded.error());
  }
  co_await exchange.send(std::move(response));
}

asio::awaitable<void> delete_adapter(Services& services, Exchange& exchange) {
  const auto done = unload(services, exchange, exchange.request().tail);
  HttpResponse response;
  if (done) {
    response.body = json_text({{"removed", *done}});
  } else {
    response = error_response(done.error());
  }
  co_await exchange.send(std::move(response));
}

// {"pinned": true or false}
asio::awaitable<void> patch_adapter(Services& services, Exchange& exchange) {
  std::optional<ApiError> error;
  bool pinned = false;
  auto body = parse_body(exchange.request().body);
  if (!body) {
    error = body.error();
  } else {
    JsonFields fields(*body);
    if (fields.find("pinned") == nullptr) fields.complain("pinned", "pinned is missing");
    fields.read_bool("pinned", pinned);
    error = fields.error();
  }
  const auto id = services.backend.find_adapter(exchange.request().tail);
  if (!error && !id) error = ApiError{.status = 404, .message = "there is no adapter of that name"};
  if (!error) {
    Backend& backend = services.backend;
    const AdapterId known = *id;
    Status status = co_await run_on(
        services.loader, [&backend, known, pinned] { return backend.pin_adapter(known, pinned); });
    if (!status) error = to_api_error(status.error());
  }
  HttpResponse response;
  if (error) {
    response = error_response(*error);
  } else if (auto info = services.backend.adapter(*id)) {
    response.body = json_text(adapter_json(services, *info));
  }
  co_await exchange.send(std::move(response));
}

}  // namespace

void add_adapter_routes(Router& router, Services& services) {
  const size_t upload = services.config.max_upload_bytes;
  const auto add = [&](const char* method, const char* path, size_t max_bytes,
                       asio::awaitable<void> (*handle)(Services&, Exchange&)) {
    router.add({.method = method,
                .path = path,
                .access = Access::kControl,
                .max_body_bytes = max_bytes,
                .handler = [handle, &services](Exchange& exchange) {
                  return handle(services, exchange);
                }});
  };
  add("POST", "/v1/load_lora_adapter", 0, vllm_load);
  add("POST", "/v1/unload_lora_adapter", 0, vllm_unload);
  add("POST", "/load_lora_adapter", 0, sglang_load);
  add("POST", "/unload_lora_adapter", 0, sglang_unload);
  add("POST", "/load_lora_adapter_from_tensors", upload / 3 * 4, sglang_load_tensors);
  add("PUT", "/v1/adapters/", upload, put_adapter);
  add("DELETE", "/v1/adapters/", 0, delete_adapter);
  add("PATCH", "/v1/adapters/", 0, patch_adapter);
  router.add("GET", "/v1/adapters", Access::kApi, [&services](const HttpRequest&) -> HttpResponse {
    return {.body = json_text({{"adapters", adapter_list(services)}})};
  });
}

}  // namespace braid::server

// What operators and benchmarks ask for: metrics, abort, flush, profile.

#include "server/generation.h"
#include "server/http/exchange.h"
#include "server/json_fields.h"
#include "server/json_text.h"
#include "server/routes.h"
#include "server/services.h"

namespace braid::server {
namespace {

HttpResponse plain(std::string text) {
  return {.content_type = "text/plain; charset=utf-8", .body = std::move(text)};
}

HttpResponse abort_request(Services& services, const HttpRequest& request) {
  auto body = parse_body(request.body);
  if (!body) return error_response(body.error());
  JsonFields fields(*body);
  std::string rid;
  bool all = false;
  fields.read_string("rid", rid);
  fields.read_bool("abort_all", all);
  if (!fields.error() && rid.empty() && !all)
    fields.complain("rid", "rid is missing; or give \"abort_all\": true");
  if (fields.error()) return error_response(*fields.error());
  if (all && !request.is_admin) {
    return error_response({.status = 403,
                           .message = "abort_all needs the key of the administrator",
                           .param = "abort_all"});
  }
  const auto found = services.hub.find(all ? "" : rid);
  for (Generation* generation : found) generation->cancel();
  return {.body = json_text({{"success", true}, {"aborted", found.size()}})};
}

}  // namespace

void add_control_routes(Router& router, Services& services) {
  router.add("POST", "/abort_request", Access::kApi,
             [&services](const HttpRequest& request) { return abort_request(services, request); });
  for (const char* method : {"GET", "POST"}) {
    router.add(method, "/flush_cache", Access::kControl, [&services](const HttpRequest&) {
      services.backend.flush_prefix_cache();
      return plain("Cache flushed.\n");
    });
  }
  // Benchmarks ask for it around a run and want no more than a 200.
  for (const char* path : {"/start_profile", "/stop_profile"}) {
    router.add("POST", path, Access::kControl, [](const HttpRequest&) {
      return plain("There is no profiler in this server; nothing was started or stopped.\n");
    });
  }
  router.add("GET", "/metrics", Access::kOpen, [&services](const HttpRequest&) -> HttpResponse {
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
            .body = services.metrics.text(services.num_connections())};
  });
}

}  // namespace braid::server

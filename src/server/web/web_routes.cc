#include "server/web/web_routes.h"

#include <string>

#include "base/check.h"
#include "server/http/router.h"

namespace braid::server {
namespace {

// Scripts, styles and data from this server alone, nothing inline, in nobody's frame.
constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::string_view content_type(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  BRAID_CHECK(name.ends_with(".svg"));
  return "image/svg+xml";
}

}  // namespace

void add_web_routes(Router& router) {
  for (const WebFile& file : web_files()) {
    const bool is_page = file.name == "index.html";
    HttpResponse response = {.content_type = std::string(content_type(file.name)),
                             .body = std::string(file.bytes),
                             .headers = {{"Content-Security-Policy", std::string(kPolicy)},
                                         {"Referrer-Policy", "no-referrer"},
                                         {"Cache-Control", "no-cache"}}};
    router.add("GET", is_page ? "/" : "/web/" + std::string(file.name), Access::kOpen,
               [response = std::move(response)](const HttpRequest&) { return response; });
  }
}

}  // namespace braid::server

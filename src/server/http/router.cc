#include "server/http/router.h"

#include <utility>

#include "server/http/exchange.h"

namespace braid::server {

void Router::add(Route route) { routes_.push_back(std::move(route)); }

namespace {

boost::asio::awaitable<void> send_response(const Responder& respond, Exchange& exchange) {
  HttpResponse response = respond(exchange.request());
  co_await exchange.send(std::move(response));
}

}  // namespace

void Router::add(std::string method, std::string path, Access access, Responder respond) {
  add({.method = std::move(method),
       .path = std::move(path),
       .access = access,
       .handler = [respond = std::move(respond)](Exchange& exchange) {
         return send_response(respond, exchange);
       }});
}

Router::Match Router::find(std::string_view method, std::string_view path) const {
  Match match;
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Route& route : routes_) {
    const bool is_prefix = route.path.size() > 1 && route.path.ends_with('/');
    const bool fits = is_prefix ? path.starts_with(route.path) && path.size() > route.path.size()
                                : path == route.path;
    if (!fits) continue;
    if (route.method == wanted) {
      match.route = &route;
      if (is_prefix) match.tail = path.substr(route.path.size());
      return match;
    }
    if (!match.allowed.empty()) match.allowed += ", ";
    match.allowed += route.method;
  }
  return match;
}

}  // namespace braid::server

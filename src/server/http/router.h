#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/message.h"

namespace braid::server {

class Exchange;

// Answers one request. Runs on the IO thread and must not block it; what takes long goes to a
// worker (server/worker.h). May throw: the client then gets a 500.
using Handler = std::function<boost::asio::awaitable<void>(Exchange&)>;

// The usual kind: the whole answer at once.
using Responder = std::function<HttpResponse(const HttpRequest&)>;

struct Route {
  std::string method;
  std::string path;  // exact, or with '/' at its end: whatever starts with it
  Access access = Access::kApi;
  size_t max_body_bytes = 0;  // 0: the server's usual limit
  Handler handler;
};

// The routes of a server; filled before it starts.
class Router {
 public:
  void add(Route route);

  // A handler that answers with what `respond` returns.
  void add(std::string method, std::string path, Access access, Responder respond);

  struct Match {
    const Route* route = nullptr;  // null: none fits
    std::string tail;              // of the path, after a route's final '/'
    std::string allowed;           // where only the method does not fit: those that do, for "Allow"
  };
  // HEAD matches GET.
  Match find(std::string_view method, std::string_view path) const;

 private:
  std::vector<Route> routes_;
};

}  // namespace braid::server

#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>
#include <string_view>

#include "server/http/message.h"

namespace braid::server {

class Connection;

// One request and its answer, from a handler's side. Everything that writes throws
// boost::system::system_error when the client has gone; the handler is also cancelled where it
// waits as soon as that is seen, so what it started must end with it.
class Exchange {
 public:
  Exchange(Connection& connection, const HttpRequest& request, ExchangeRecord& record)
      : connection_(connection), request_(request), record_(record) {}

  const HttpRequest& request() const { return request_; }
  ExchangeRecord& record() { return record_; }

  // The whole answer. Once, and not after begin_stream(). Hand over a variable, not {...}: GCC 12
  // destroys an aggregate twice that is made inside a co_await expression.
  boost::asio::awaitable<void> send(HttpResponse response);

  // Status 200 and an event stream whose first bytes are `first`; then more; then its end.
  boost::asio::awaitable<void> begin_stream(std::string_view first);
  boost::asio::awaitable<void> write(std::string_view bytes);
  boost::asio::awaitable<void> end_stream();

  bool has_begun() const { return has_begun_; }

 private:
  Connection& connection_;
  const HttpRequest& request_;
  ExchangeRecord& record_;
  bool has_begun_ = false;  // part of an answer may have left
  bool is_chunked_ = false;
};

}  // namespace braid::server

#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <string>

#include "base/result.h"
#include "server/auth.h"
#include "server/http/router.h"

namespace braid::server {

class Connection;

// What a client may cost before it has proved anything.
struct HttpLimits {
  size_t max_header_bytes = size_t{32} << 10;
  int32_t max_headers = 100;
  size_t max_body_bytes = size_t{16} << 20;          // of routes without a limit of their own
  size_t max_body_bytes_in_use = size_t{1} << 30;    // of all requests that are read or answered
  int32_t max_connections = 4096;                    // beyond it: 503 at once
  std::chrono::milliseconds idle_timeout{75'000};    // between requests of a connection
  std::chrono::milliseconds header_timeout{10'000};  // for a request's whole header
  std::chrono::milliseconds body_timeout{20'000};    // for a body, and one second more for
  size_t min_body_bytes_per_s = size_t{64} << 10;    // each that many bytes of it
  std::chrono::milliseconds write_timeout{30'000};   // for the client to take what is written
};

// Accepts connections, reads requests within the limits, hands them to the routes, writes the
// answers. Everything happens on the thread that runs the io_context.
class HttpServer {
 public:
  using Clock = std::chrono::steady_clock;

  // The router, and whoever `on_done` belongs to, must outlive the server. `on_done` hears of each
  // exchange once it is over.
  HttpServer(boost::asio::io_context& io, const Router& router, Auth auth, HttpLimits limits,
             std::function<void(const ExchangeRecord&)> on_done);
  ~HttpServer();

  // Port 0 takes a free one: see port().
  //
  // Errors  kIo (address in use, not ours, not an address)
  Status listen(const std::string& host, uint16_t port);
  uint16_t port() const { return port_; }

  // No new connections or requests; those under way are answered. Calls `on_idle` once none is
  // left.
  void drain(std::function<void()> on_idle);
  bool is_draining() const { return is_draining_; }

  // Closes every connection, answered or not.
  void close_all();

  int32_t num_connections() const { return static_cast<int32_t>(connections_.size()); }

 private:
  friend class Connection;
  using Connections = std::list<Connection*>;

  boost::asio::awaitable<void> accept_loop();
  boost::asio::awaitable<void> sweep_loop();
  void leave(Connections::iterator place);

  boost::asio::io_context& io_;
  const Router& router_;
  Auth auth_;
  HttpLimits limits_;
  std::function<void(const ExchangeRecord&)> on_done_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer sweep_timer_;
  uint16_t port_ = 0;
  Connections connections_;
  size_t body_bytes_in_use_ = 0;
  bool is_draining_ = false;
  std::function<void()> on_idle_;
  uint64_t next_request_id_;
};

}  // namespace braid::server

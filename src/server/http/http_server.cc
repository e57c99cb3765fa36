#include "server/http/http_server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <utility>

#include "server/http/connection.h"

namespace braid::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds kSweepInterval{250};

constexpr std::string_view kTooMany =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    "Connection: close\r\nContent-Length: 117\r\n\r\n"
    "{\"error\": {\"message\": \"too many connections\", \"type\": \"ServiceUnavailableError\", "
    "\"param\": null, \"code\": 503}}        ";

asio::awaitable<void> serve(tcp::socket socket, HttpServer& server) {
  Connection connection(std::move(socket), server);
  co_await connection.run();
}

}  // namespace

HttpServer::HttpServer(asio::io_context& io, const Router& router, Auth auth, HttpLimits limits,
                       std::function<void(const ExchangeRecord&)> on_done)
    : io_(io),
      router_(router),
      auth_(std::move(auth)),
      limits_(limits),
      on_done_(std::move(on_done)),
      acceptor_(io),
      sweep_timer_(io),
      next_request_id_((uint64_t{std::random_device{}()} << 32) | std::random_device{}()) {}

HttpServer::~HttpServer() = default;

Status HttpServer::listen(const std::string& host, uint16_t port) {
  error_code error;
  tcp::resolver resolver(io_);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty())
    return fail(ErrorCode::kIo, "\"{}\" is no address to listen on: {}", host, error.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error)
    return fail(ErrorCode::kIo, "cannot listen on {} port {}: {}", host, port, error.message());
  port_ = acceptor_.local_endpoint().port();
  asio::co_spawn(io_, accept_loop(), asio::detached);
  asio::co_spawn(io_, sweep_loop(), asio::detached);
  return {};
}

asio::awaitable<void> HttpServer::accept_loop() {
  for (;;) {
    auto [error, socket] = co_await acceptor_.async_accept(kTuple);
    if (is_draining_ || !acceptor_.is_open()) co_return;
    if (error) {
      // Out of descriptors, as a rule: those in use have to end first.
      asio::steady_timer pause(io_, std::chrono::milliseconds(100));
      co_await pause.async_wait(kTuple);
      continue;
    }
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    socket.non_blocking(true, ignored);
    if (num_connections() >= limits_.max_connections) {
      socket.write_some(asio::buffer(kTooMany), ignored);
      socket.shutdown(tcp::socket::shutdown_send, ignored);
      continue;
    }
    asio::co_spawn(io_, serve(std::move(socket), *this), asio::detached);
  }
}

asio::awaitable<void> HttpServer::sweep_loop() {
  for (;;) {
    sweep_timer_.expires_after(kSweepInterval);
    const auto [error] = co_await sweep_timer_.async_wait(kTuple);
    if (error) co_return;
    const auto now = Clock::now();
    for (Connection* connection : connections_) connection->check_deadline(now);
  }
}

void HttpServer::drain(std::function<void()> on_idle) {
  is_draining_ = true;
  on_idle_ = std::move(on_idle);
  error_code ignored;
  acceptor_.close(ignored);
  for (Connection* connection : connections_) connection->close_if_idle();
  if (connections_.empty() && on_idle_) std::exchange(on_idle_, nullptr)();
}

void HttpServer::close_all() {
  error_code ignored;
  acceptor_.close(ignored);
  sweep_timer_.cancel();
  for (Connection* connection : connections_) connection->close();
}

void HttpServer::leave(Connections::iterator place) {
  connections_.erase(place);
  if (is_draining_ && connections_.empty() && on_idle_) std::exchange(on_idle_, nullptr)();
}

}  // namespace braid::server

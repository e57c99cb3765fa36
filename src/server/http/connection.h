#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "server/api_error.h"
#include "server/http/http_server.h"
#include "server/http/message.h"

namespace braid::server {

// One client: reads its requests one after the other, answers each. Lives in the coroutine that
// runs it.
class Connection {
 public:
  Connection(boost::asio::ip::tcp::socket socket, HttpServer& server);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Until the client leaves or is sent away.
  boost::asio::awaitable<void> run();

  // Writes all of it. Throws boost::system::system_error when that fails or takes too long.
  boost::asio::awaitable<void> write(std::string_view head, std::string_view body = {},
                                     std::string_view end = {});

  // The lines in front of an answer. `length`: of its body; none: it comes in chunks, or where the
  // client does not know chunks, until the connection ends.
  std::string head(const HttpResponse& response, std::optional<size_t> length);
  bool knows_chunks() const { return is_http_1_1_; }
  bool is_head_request() const { return is_head_request_; }

  // From the server: gives up what took too long; ends waiting for a next request; ends all.
  void check_deadline(HttpServer::Clock::time_point now);
  void close_if_idle();
  void close();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  enum class State { kIdle, kReading, kAnswering, kWriting };

  boost::asio::awaitable<bool> serve_one();
  boost::asio::awaitable<std::optional<ApiError>> read_body(Parser& parser, size_t limit);
  std::optional<ApiError> take_header(const Parser& parser, HttpRequest& request);
  std::optional<ApiError> choose_route(HttpRequest& request, const Route*& route,
                                       std::string& allowed) const;
  boost::asio::awaitable<void> answer(const Route& route, HttpRequest& request,
                                      ExchangeRecord& record);
  boost::asio::awaitable<void> run_handler(const Route& route, Exchange& exchange);
  boost::asio::awaitable<void> watch_client();
  boost::asio::awaitable<void> refuse(const ApiError& error, HttpRequest& request,
                                      ExchangeRecord& record, std::string_view allowed);
  boost::asio::awaitable<void> linger();
  void set_state(State state, std::chrono::milliseconds limit);
  void finish(HttpRequest& request, ExchangeRecord& record);

  boost::asio::ip::tcp::socket socket_;
  HttpServer& server_;
  HttpServer::Connections::iterator place_;
  boost::beast::flat_buffer buffer_;
  State state_ = State::kIdle;
  HttpServer::Clock::time_point deadline_ = HttpServer::Clock::time_point::max();
  bool has_timed_out_ = false;
  bool is_client_gone_ = false;
  bool keeps_alive_ = true;
  bool is_http_1_1_ = true;
  bool is_head_request_ = false;
  std::string request_id_;      // of the request that is answered
  size_t body_bytes_held_ = 0;  // of HttpServer::body_bytes_in_use_
  int64_t bytes_written_ = 0;   // of this answer
};

}  // namespace braid::server

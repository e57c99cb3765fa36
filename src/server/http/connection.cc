#include "server/http/connection.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <exception>
#include <utility>

#include "server/http/exchange.h"

namespace braid::server {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using boost::system::system_error;
using std::chrono::milliseconds;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

// A refused request's body of up to that many bytes is read all the same, so that the connection
// can go on.
constexpr size_t kBodyReadAnyway = size_t{64} << 10;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return out;
}

// What may stand in a log line and go back in a header as it is.
bool is_request_id(std::string_view text) {
  return !text.empty() && text.size() <= 128 &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127 && c != '"'; });
}

// Browsers let any page send requests to any address, this machine's own too, and say whose page it
// is. Without this, a page that somebody looks at could load adapters here.
bool is_from_another_site(const HttpRequest& request) {
  if (request.method == "GET" || request.method == "HEAD") return false;
  std::string_view origin = request.header("origin");
  if (origin.empty()) return false;
  const size_t scheme = origin.find("://");
  if (scheme != origin.npos) origin.remove_prefix(scheme + 3);
  return origin != request.header("host");
}

ApiError why_not_read(const error_code& error, bool has_timed_out, const HttpLimits& limits) {
  if (has_timed_out)
    return {.status = 408, .message = "the request did not arrive in time; send it faster"};
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return {
        .status = 431,
        .message = fmt::format("the request's header has more than {} bytes, which is the limit",
                               limits.max_header_bytes)};
  }
  return {.status = 400, .message = fmt::format("this is not HTTP/1.1: {}", error.message())};
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, HttpServer& server)
    : socket_(std::move(socket)),
      server_(server),
      place_(server.connections_.insert(server.connections_.end(), this)) {}

Connection::~Connection() { server_.leave(place_); }

void Connection::set_state(State state, milliseconds limit) {
  state_ = state;
  deadline_ = limit == milliseconds::max() ? HttpServer::Clock::time_point::max()
                                           : HttpServer::Clock::now() + limit;
}

void Connection::check_deadline(HttpServer::Clock::time_point now) {
  if (now < deadline_) return;
  has_timed_out_ = true;
  deadline_ = HttpServer::Clock::time_point::max();
  error_code ignored;
  if (state_ == State::kWriting) {
    socket_.close(ignored);
  } else {
    socket_.cancel(ignored);
  }
}

void Connection::close_if_idle() {
  error_code ignored;
  if (state_ == State::kIdle) socket_.cancel(ignored);
}

void Connection::close() {
  error_code ignored;
  socket_.close(ignored);
}

asio::awaitable<void> Connection::run() {
  try {
    for (;;) {
      if (buffer_.size() == 0) {
        set_state(State::kIdle, server_.limits_.idle_timeout);
        const auto [error, size] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
        if (error) co_return;
        buffer_.commit(size);
      }
      if (!co_await serve_one()) break;
      if (!keeps_alive_ || server_.is_draining_) break;
    }
    co_await linger();
  } catch (const std::exception&) {
    // The client has gone, was too slow to take its answer, or there is no memory for its request:
    // in each case this connection ends, and no other.
  }
}

// Closing at once with unread input makes the kernel reset the connection, and the answer may be
// lost on its way.
asio::awaitable<void> Connection::linger() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  set_state(State::kReading, milliseconds(1000));
  std::array<char, 16384> rest;
  for (int i = 0; i < 4096; ++i) {
    const auto [error, size] = co_await socket_.async_read_some(asio::buffer(rest), kTuple);
    if (error) co_return;
  }
}

std::optional<ApiError> Connection::take_header(const Parser& parser, HttpRequest& request) {
  const auto& message = parser.get();
  request.method = message.method_string();
  is_http_1_1_ = message.version() >= 11;
  is_head_request_ = request.method == "HEAD";
  keeps_alive_ = message.keep_alive();
  int32_t num_headers = 0;
  for (const auto& field : message) {
    if (++num_headers > server_.limits_.max_headers) {
      return ApiError{.status = 431,
                      .message = fmt::format("more than {} header lines, which is the limit",
                                             server_.limits_.max_headers)};
    }
    request.headers.emplace_back(lower(field.name_string()), std::string(field.value()));
  }
  const std::string_view id = request.header("x-request-id");
  request.id =
      is_request_id(id) ? std::string(id) : fmt::format("req-{:016x}", server_.next_request_id_++);
  request_id_ = request.id;

  std::string_view target = message.target();
  if (target.starts_with("http://")) {  // the form for proxies
    const size_t slash = target.find('/', 7);
    target = slash == target.npos ? "/" : target.substr(slash);
  }
  const size_t question = target.find('?');
  if (question != target.npos) request.query = target.substr(question + 1);
  if (!target.starts_with('/') || !percent_decode(target.substr(0, question), request.path))
    return ApiError{.status = 400, .message = "the request's target is not a path"};
  return std::nullopt;
}

std::optional<ApiError> Connection::choose_route(HttpRequest& request, const Route*& route,
                                                 std::string& allowed) const {
  const Router::Match match = server_.router_.find(request.method, request.path);
  if (match.route == nullptr && match.allowed.empty()) {
    return ApiError{.status = 404,
                    .message = fmt::format("there is nothing at {}", request.path.substr(0, 200))};
  }
  if (match.route == nullptr) {
    allowed = match.allowed;
    return ApiError{.status = 405,
                    .message = fmt::format("{} takes {}, not {}", request.path, allowed,
                                           request.method.substr(0, 20))};
  }
  const std::string_view authorization = request.header("authorization");
  if (!server_.auth_.may_use(match.route->access, authorization)) {
    return ApiError{.status = 401,
                    .message = match.route->access == Access::kControl
                                   ? "this needs the key of the administrator as \"Authorization: "
                                     "Bearer KEY\""
                                   : "this needs a key as \"Authorization: Bearer KEY\""};
  }
  if (is_from_another_site(request)) {
    return ApiError{.status = 403,
                    .message = "a page of another site may not use this server from a browser"};
  }
  request.is_admin = server_.auth_.may_use(Access::kControl, authorization);
  request.tail = match.tail;
  route = match.route;
  return std::nullopt;
}

asio::awaitable<std::optional<ApiError>> Connection::read_body(Parser& parser, size_t limit) {
  const HttpLimits& limits = server_.limits_;
  const auto too_large = [&] {
    return ApiError{.status = 413,
                    .message = fmt::format("the request's body has more than {} bytes, which is "
                                           "the limit here",
                                           limit)};
  };
  const auto length = parser.content_length();
  if (length && *length > limit) co_return too_large();
  if (parser.is_done()) co_return std::nullopt;
  if (lower(parser.get()[http::field::expect]) == "100-continue")
    co_await write("HTTP/1.1 100 Continue\r\n\r\n");
  parser.body_limit(limit);
  parser.eager(true);
  set_state(State::kReading, limits.body_timeout);
  const auto start = HttpServer::Clock::now();
  while (!parser.is_done()) {
    const auto [error, size] = co_await http::async_read_some(socket_, buffer_, parser, kTuple);
    if (error == http::error::body_limit) co_return too_large();
    if (error) co_return why_not_read(error, has_timed_out_, limits);
    const size_t bytes = parser.get().body().size();
    if (server_.body_bytes_in_use_ + (bytes - body_bytes_held_) > limits.max_body_bytes_in_use) {
      co_return ApiError{.status = 503,
                         .message = "too many large requests at a time; try again later",
                         .retry_after_s = 1};
    }
    server_.body_bytes_in_use_ += bytes - body_bytes_held_;
    body_bytes_held_ = bytes;
    deadline_ = start + limits.body_timeout +
                std::chrono::seconds(bytes / std::max<size_t>(1, limits.min_body_bytes_per_s));
  }
  co_return std::nullopt;
}

// False: nothing more to say to this client.
asio::awaitable<bool> Connection::serve_one() {
  HttpRequest request;
  ExchangeRecord record;
  request.arrived = HttpServer::Clock::now();
  bytes_written_ = 0;
  keeps_alive_ = true;
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(server_.limits_.max_header_bytes));
  parser.body_limit(boost::none);  // read_body() sets one
  set_state(State::kReading, server_.limits_.header_timeout);
  const auto [error, size] = co_await http::async_read_header(socket_, buffer_, parser, kTuple);
  if (error) {
    // Nobody is there to be told.
    if (error != http::error::partial_message && error != http::error::end_of_stream &&
        (has_timed_out_ ||
         error.category() == http::make_error_code(http::error::bad_method).category())) {
      keeps_alive_ = false;
      request_id_ = request.id = fmt::format("req-{:016x}", server_.next_request_id_++);
      co_await refuse(why_not_read(error, has_timed_out_, server_.limits_), request, record, "");
      co_return true;  // run() lingers
    }
    co_return false;
  }
  record.method = parser.get().method_string();
  const Route* route = nullptr;
  std::string allowed;
  auto refusal = take_header(parser, request);
  if (refusal) {
    keeps_alive_ = false;
  } else {
    refusal = choose_route(request, route, allowed);
  }
  if (route != nullptr) record.route = route->path;
  size_t limit = kBodyReadAnyway;
  if (!refusal)
    limit = route->max_body_bytes > 0 ? route->max_body_bytes : server_.limits_.max_body_bytes;
  if (auto unread = co_await read_body(parser, limit)) {
    keeps_alive_ = false;
    if (!refusal) refusal = std::move(unread);
  }
  request.body = std::move(parser.get().body());
  record.bytes_in = static_cast<int64_t>(request.body.size());
  if (server_.is_draining_) keeps_alive_ = false;
  if (refusal) {
    co_await refuse(*refusal, request, record, allowed);
  } else {
    co_await answer(*route, request, record);
  }
  co_return !is_client_gone_;
}

asio::awaitable<void> Connection::refuse(const ApiError& error, HttpRequest& request,
                                         ExchangeRecord& record, std::string_view allowed) {
  HttpResponse response = error_response(error);
  if (!allowed.empty()) response.headers.emplace_back("Allow", allowed);
  record.error = error.message;
  Exchange exchange(*this, request, record);
  try {
    co_await exchange.send(std::move(response));
  } catch (const system_error&) {
    is_client_gone_ = true;
  }
  finish(request, record);
}

asio::awaitable<void> Connection::answer(const Route& route, HttpRequest& request,
                                         ExchangeRecord& record) {
  using asio::experimental::awaitable_operators::operator||;
  set_state(State::kAnswering, milliseconds::max());
  Exchange exchange(*this, request, record);
  co_await (run_handler(route, exchange) || watch_client());
  finish(request, record);
}

asio::awaitable<void> Connection::run_handler(const Route& route, Exchange& exchange) {
  std::string bug;
  try {
    co_await route.handler(exchange);
    if (!exchange.has_begun()) bug = "the handler gave no answer";
  } catch (const system_error& error) {
    is_client_gone_ = true;  // it left, or its deadline passed
    keeps_alive_ = false;
  } catch (const std::exception& error) {
    bug = error.what();
  }
  if (bug.empty()) co_return;
  exchange.record().error = bug;
  keeps_alive_ = false;  // an answer that has begun is cut off: better than an end that looks whole
  if (exchange.has_begun()) co_return;
  try {
    const ApiError error = {.status = 500, .message = bug};
    co_await exchange.send(error_response(error));
  } catch (const system_error&) {
    is_client_gone_ = true;
  }
}

// Returns when the client has closed its side.
asio::awaitable<void> Connection::watch_client() {
  asio::steady_timer pause(socket_.get_executor());
  for (;;) {
    const auto [error] = co_await socket_.async_wait(asio::ip::tcp::socket::wait_read, kTuple);
    if (error) co_return;
    pollfd peer = {.fd = socket_.native_handle(), .events = POLLRDHUP, .revents = 0};
    if (poll(&peer, 1, 0) > 0 && (peer.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
      is_client_gone_ = true;
      keeps_alive_ = false;
      co_return;
    }
    // It sent its next request already: asked again now and then.
    pause.expires_after(milliseconds(200));
    const auto [stopped] = co_await pause.async_wait(kTuple);
    if (stopped) co_return;
  }
}

void Connection::finish(HttpRequest& request, ExchangeRecord& record) {
  server_.body_bytes_in_use_ -= std::exchange(body_bytes_held_, 0);
  record.request_id = request.id;
  record.bytes_out = bytes_written_;
  record.is_client_gone = is_client_gone_;
  record.seconds =
      std::chrono::duration<double>(HttpServer::Clock::now() - request.arrived).count();
  server_.on_done_(record);
}

asio::awaitable<void> Connection::write(std::string_view first, std::string_view second,
                                        std::string_view third) {
  const std::array<asio::const_buffer, 3> buffers = {asio::buffer(first), asio::buffer(second),
                                                     asio::buffer(third)};
  const State before = state_;
  set_state(State::kWriting, server_.limits_.write_timeout);
  const auto [error, size] = co_await asio::async_write(socket_, buffers, kTuple);
  if (error) throw system_error(error);
  bytes_written_ += static_cast<int64_t>(size);
  set_state(before, milliseconds::max());
}

std::string Connection::head(const HttpResponse& response, std::optional<size_t> length) {
  std::string out = fmt::format(
      "HTTP/1.1 {} {}\r\nServer: braid\r\nX-Request-Id: {}\r\nX-Content-Type-Options: nosniff\r\n",
      response.status,
      std::string_view(http::obsolete_reason(static_cast<http::status>(response.status))),
      request_id_);
  if (!response.content_type.empty())
    out += fmt::format("Content-Type: {}\r\n", response.content_type);
  for (const auto& [name, value] : response.headers) out += fmt::format("{}: {}\r\n", name, value);
  if (length) {
    out += fmt::format("Content-Length: {}\r\n", *length);
  } else if (is_http_1_1_) {
    out += "Transfer-Encoding: chunked\r\n";
  } else {
    keeps_alive_ = false;
  }
  out += keeps_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return out;
}

}  // namespace braid::server

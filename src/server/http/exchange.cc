#include "server/http/exchange.h"

#include <fmt/format.h>

#include "base/check.h"
#include "server/http/connection.h"

namespace braid::server {

namespace asio = boost::asio;

asio::awaitable<void> Exchange::send(HttpResponse response) {
  BRAID_CHECK(!has_begun_);
  has_begun_ = true;
  record_.status = response.status;
  const std::string head = connection_.head(response, response.body.size());
  if (connection_.is_head_request()) response.body.clear();
  co_await connection_.write(head, response.body);
}

asio::awaitable<void> Exchange::begin_stream(std::string_view first) {
  BRAID_CHECK(!has_begun_);
  has_begun_ = true;
  is_chunked_ = connection_.knows_chunks();
  record_.status = 200;
  const HttpResponse response = {
      .content_type = "text/event-stream",
      .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}};
  std::string head = connection_.head(response, std::nullopt);
  if (is_chunked_ && !first.empty()) head += fmt::format("{:x}\r\n", first.size());
  co_await connection_.write(head, first, is_chunked_ && !first.empty() ? "\r\n" : "");
}

asio::awaitable<void> Exchange::write(std::string_view bytes) {
  if (bytes.empty()) co_return;
  if (!is_chunked_) {
    co_await connection_.write(bytes);
    co_return;
  }
  const std::string head = fmt::format("{:x}\r\n", bytes.size());
  co_await connection_.write(head, bytes, "\r\n");
}

asio::awaitable<void> Exchange::end_stream() {
  if (is_chunked_) co_await connection_.write("0\r\n\r\n");
}

}  // namespace braid::server

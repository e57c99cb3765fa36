#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace braid::server {

using Headers = std::vector<std::pair<std::string, std::string>>;

// A request that has arrived whole.
struct HttpRequest {
  std::string method;
  std::string path;   // percent-decoded, without the query
  std::string query;  // as sent, without '?'
  std::string tail;   // of a route that ends in '/': what stands after it
  Headers headers;    // names in lower case
  std::string body;
  std::string id;         // X-Request-Id: the client's, or made here
  bool is_admin = false;  // whoever asks may use the control routes
  std::chrono::steady_clock::time_point arrived;

  // Empty where there is none. `name` in lower case.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  Headers headers;  // further ones
};

// Who may use a route.
enum class Access {
  kOpen,     // everybody
  kApi,      // with an API key, if the server has one
  kControl,  // with the admin key, if the server has one, else as kApi
};

// What one exchange was, for logs and metrics. Handlers fill in what only they know.
struct ExchangeRecord {
  std::string request_id;
  std::string method;
  std::string route;  // pattern of the route; "" where none matched
  int status = 0;     // 0: the client was gone before an answer
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;
  double seconds = 0.0;
  bool is_client_gone = false;

  std::string model;  // as asked
  std::string adapter;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t completion_tokens = 0;
  double first_token_seconds = -1.0;  // -1: there was none
  std::string finish_reason;
  std::string error;
};

// "%41" -> "A". False where a '%' is not followed by two hexadecimal digits or a NUL comes out.
bool percent_decode(std::string_view text, std::string& out);

}  // namespace braid::server

#include "server/api_error.h"

#include "base/json.h"
#include "server/json_text.h"

namespace braid::server {

ApiError to_api_error(const Error& error, std::string param) {
  ApiError out = {.status = 400, .message = error.message, .param = std::move(param)};
  switch (error.code) {
    case ErrorCode::kNotFound:
      out.status = 404;
      break;
    case ErrorCode::kResourceExhausted:
      out.status = 429;
      out.retry_after_s = 1;
      break;
    case ErrorCode::kIo:
      out.status = 500;
      break;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
    case ErrorCode::kCorrupt:
      break;
  }
  return out;
}

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "AuthenticationError";
    case 403:
      return "PermissionDeniedError";
    case 404:
      return "NotFoundError";
    case 409:
      return "ConflictError";
    case 429:
      return "RateLimitError";
    case 503:
      return "ServiceUnavailableError";
  }
  return status >= 500 ? "InternalServerError" : "BadRequestError";
}

std::string error_json(const ApiError& error) {
  const Json body = {{"error",
                      {{"message", error.message},
                       {"type", error_type(error.status)},
                       {"param", error.param.empty() ? Json() : Json(error.param)},
                       {"code", error.status}}}};
  return json_text(body);
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response = {.status = error.status, .body = error_json(error)};
  if (error.retry_after_s > 0)
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace braid::server

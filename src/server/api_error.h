#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "base/result.h"
#include "server/http/message.h"

namespace braid::server {

// What a client is told when a request fails.
struct ApiError {
  int status = 400;
  std::string message;
  std::string param = {};  // the field at fault; "" if it is none in particular
  int retry_after_s = 0;   // 0: trying again does not help
};

template <class T>
using ApiResult = tl::expected<T, ApiError>;

// An engine's error as an answer: kNotFound 404, kResourceExhausted 429, kIo 500, all else 400.
ApiError to_api_error(const Error& error, std::string param = {});

// "BadRequestError", "NotFoundError", ...: the names of the OpenAI clients' exceptions.
std::string_view error_type(int status);

// {"error": {"message", "type", "param", "code"}} on one line.
std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

}  // namespace braid::server

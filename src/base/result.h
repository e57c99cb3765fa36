#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

#include "braid/result.h"

namespace braid {

// return fail(ErrorCode::kCorrupt, "{}: header is {} bytes, ...", file, n);
template <class... Args>
tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// Hands an error on unchanged: `if (!file) return pass_on(file);`
template <class T>
tl::unexpected<Error> pass_on(Result<T>& result) {
  return tl::unexpected<Error>(std::move(result.error()));
}

// The same with a place put in front of the message: "adapter "sql": ...".
template <class T>
tl::unexpected<Error> pass_on(Result<T>& result, const std::string& place) {
  return tl::unexpected<Error>(Error{result.error().code, place + ": " + result.error().message});
}

}  // namespace braid

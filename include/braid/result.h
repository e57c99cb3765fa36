#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace braid {

// What went wrong, by what helps: each code has its own remedy.
enum class ErrorCode {
  kInvalidArgument,    // the caller asked for something that makes no sense; change the request
  kNotFound,           // a file, adapter or tensor is not there; name another one
  kUnsupported,        // well-formed, but this build cannot do it
  kCorrupt,            // a file contradicts itself or its format; get a good copy
  kResourceExhausted,  // memory, queue or slots are full; wait, or raise the limit
  kIo,                 // the operating system refused; its reason is in the message
};

std::string_view name(ErrorCode code);

// One sentence: the thing, its value, and what would be accepted. File errors name the file.
struct Error {
  ErrorCode code;
  std::string message;
};

// A value, or why there is none. For what a user, a file or a full machine can cause; bugs throw.
template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

}  // namespace braid

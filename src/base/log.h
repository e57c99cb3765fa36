#pragma once

#include <spdlog/spdlog.h>

#include <memory>

namespace braid {

// What a library object writes its warnings and progress lines to. Passed down from the program;
// a default-made one drops everything, so the library prints nothing unless it is told to.
using Logger = std::shared_ptr<spdlog::logger>;

Logger null_logger();

}  // namespace braid

#pragma once

#include <string>

#include "server/http/message.h"

namespace braid::server {

enum class LogFormat { kNone, kText, kJson };

// One line for one exchange, without its end. Prompts and replies are not in it.
std::string log_line(const ExchangeRecord& record, LogFormat format);

}  // namespace braid::server

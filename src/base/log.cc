#include "base/log.h"

#include <spdlog/sinks/null_sink.h>

namespace braid {

Logger null_logger() {
  return std::make_shared<spdlog::logger>("null", std::make_shared<spdlog::sinks::null_sink_mt>());
}

}  // namespace braid

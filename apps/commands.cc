#include "apps/commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include "apps/terminal.h"

namespace braid::apps {

void complain(const std::string& message) {
  write_err(fmt::format("{} {}\n", red(terminal_of(STDERR_FILENO), "braid:"), printable(message)));
}

void leave(const std::string& message, int status) {
  complain(message);
  throw CLI::RuntimeError(status);
}

}  // namespace braid::apps

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>

#include "apps/commands.h"
#include "apps/terminal.h"

namespace braid::apps {

void leave(const std::string& message, int status) {
  fmt::print(stderr, "{} {}\n", red(terminal_of(STDERR_FILENO), "braid:"), printable(message));
  throw CLI::RuntimeError(status);
}

namespace {

int run(int argc, char** argv) {
  CLI::App program(
      "Serves many LoRA fine-tunes of one mixture-of-experts model.\n\n"
      "  braid inspect MODEL                      what a checkpoint holds\n"
      "  braid validate ADAPTER --model MODEL     will this adapter work, and how is it read\n"
      "  braid generate MODEL --lora a=PATH --adapter a --chat \"Hello\"\n"
      "  braid quantize MODEL --format fp8 --out DIR\n"
      "  braid bench decode MODEL                 tokens/s with and without adapters\n",
      "braid");
  program.set_version_flag("--version", "braid " BRAID_VERSION);
  program.require_subcommand(1);
  program.failure_message(CLI::FailureMessage::help);
  program.failure_message([](const CLI::App* app, const CLI::Error& error) {
    return fmt::format("braid: {}\nTry: {} --help\n", error.what(), app->get_name());
  });
  add_generate(program);
  add_validate(program);
  add_inspect(program);
  add_quantize(program);
  add_bench(program);
  CLI11_PARSE(program, argc, argv);
  return 0;
}

}  // namespace
}  // namespace braid::apps

int main(int argc, char** argv) {
  // `braid ... | head` ends the writer quietly by a failed write, not by a signal in the middle of
  // it.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return braid::apps::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "braid: {}\nThis is a bug of Braid; please report it with the command.\n",
               error.what());
    return 70;
  }
}

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <exception>
#include <new>
#include <system_error>

#include "apps/commands.h"
#include "apps/terminal.h"

namespace braid::apps {
namespace {

constexpr int kBug = 70;  // EX_SOFTWARE of sysexits.h

// "braid bench decode": the program with the sub-commands that were given.
std::string chosen_command(const CLI::App& program) {
  std::string command = program.get_name();
  for (const CLI::App* app = &program; !app->get_subcommands().empty();) {
    app = app->get_subcommands().front();
    command += " " + app->get_name();
  }
  return command;
}

int run(int argc, char** argv) {
  CLI::App program(
      "Serves many LoRA fine-tunes of one mixture-of-experts model.\n\n"
      "  braid serve MODEL --lora a=PATH          the OpenAI API over HTTP\n"
      "  braid inspect MODEL                      what a checkpoint holds\n"
      "  braid validate ADAPTER --model MODEL     will this adapter work, and how is it read\n"
      "  braid generate MODEL --lora a=PATH --adapter a --chat \"Hello\"\n"
      "  braid quantize MODEL --format fp8 --out DIR\n"
      "  braid perplexity MODEL --text FILE       how well it predicts a text\n"
      "  braid bench decode MODEL                 tokens/s with and without adapters\n"
      "  braid bench prefill MODEL                the same of prompts\n"
      "  braid bench mixed MODEL                  what replies feel while prompts arrive\n",
      "braid");
  program.set_version_flag("--version", "braid " BRAID_VERSION);
  program.require_subcommand(1);
  program.footer("\nExit status: 0 done, 1 failed, 2 not a command that makes sense.");
  add_serve(program);
  add_generate(program);
  add_validate(program);
  add_inspect(program);
  add_quantize(program);
  add_perplexity(program);
  add_bench(program);
  try {
    program.parse(argc, argv);
  } catch (const CLI::RuntimeError& error) {  // the command has said why
    return error.get_exit_code();
  } catch (const CLI::Success& error) {  // --help, --version
    return program.exit(error);
  } catch (const CLI::ParseError& error) {
    complain(error.what());
    write_err(fmt::format("Try: {} --help\n", chosen_command(program)));
    return kUsage;
  }
  return 0;
}

}  // namespace

}  // namespace braid::apps

int main(int argc, char** argv) {
  using namespace braid::apps;
  // `braid ... | head` ends the writer by a failed write, not by a signal in the middle of it.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    const int status = run(argc, argv);
    write_out("");  // a failure to write what is still buffered must not pass for success
    return status;
  } catch (const std::system_error& error) {
    // The reader has what it wanted.
    if (error.code() == std::errc::broken_pipe) return 0;
    complain(error.what());
    return 1;
  } catch (const std::bad_alloc&) {
    complain("out of memory; a smaller --kv-cache or --max-batch-tokens may help");
    return 1;
  } catch (const std::exception& error) {
    complain(error.what());
    write_err("This is a bug of Braid; please report it with the command.\n");
    return kBug;
  }
}

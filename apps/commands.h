#pragma once

#include <CLI/CLI.hpp>

namespace braid::apps {

// Each adds one sub-command with its options to the program. When it was chosen, CLI11 runs its
// callback, which throws CLI::RuntimeError with the exit status where the work failed (after one
// line on stderr that says why).
void add_generate(CLI::App& program);
void add_validate(CLI::App& program);
void add_inspect(CLI::App& program);
void add_quantize(CLI::App& program);
void add_bench(CLI::App& program);

// Prints "braid: MESSAGE" to stderr and leaves the command with `status`.
[[noreturn]] void leave(const std::string& message, int status = 1);

}  // namespace braid::apps

#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace braid::apps {

// Each adds one sub-command with its options to the program. When it was chosen, CLI11 runs its
// callback, which throws CLI::RuntimeError with the exit status where the work failed (after one
// line on stderr that says why).
void add_serve(CLI::App& program);
void add_generate(CLI::App& program);
void add_validate(CLI::App& program);
void add_inspect(CLI::App& program);
void add_quantize(CLI::App& program);
void add_perplexity(CLI::App& program);
void add_bench(CLI::App& program);
void add_bench_decode(CLI::App& bench);
void add_bench_prefill(CLI::App& bench);
void add_bench_mixed(CLI::App& bench);
void add_bench_layer(CLI::App& bench);      // builds with CUDA only
void add_bench_attention(CLI::App& bench);  // builds with CUDA only
void add_bench_swap(CLI::App& bench);       // builds with CUDA only
void add_bench_linear(CLI::App& bench);     // builds with CUDA only
void add_bench_sampling(CLI::App& bench);   // builds with CUDA only

// What sets exit status 2: the command line makes no sense, whatever the files hold.
inline constexpr int kUsage = 2;

// Prints "braid: MESSAGE" to stderr.
void complain(const std::string& message);

// The same, and leaves the command with `status`.
[[noreturn]] void leave(const std::string& message, int status = 1);

}  // namespace braid::apps

// braid bench: the group of all that measures.

#include "apps/commands.h"

namespace braid::apps {

void add_bench(CLI::App& program) {
  CLI::App* bench = program.add_subcommand("bench", "Measure this machine");
  bench->require_subcommand(1);
#ifdef BRAID_HAS_CUDA
  add_bench_layer(*bench);
  add_bench_attention(*bench);
  add_bench_swap(*bench);
  add_bench_linear(*bench);
  add_bench_sampling(*bench);
#endif
  add_bench_decode(*bench);
  add_bench_prefill(*bench);
  add_bench_mixed(*bench);
}

}  // namespace braid::apps

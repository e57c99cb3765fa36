// braid quantize: a checkpoint in, a quantised copy out.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "apps/commands.h"
#include "apps/progress.h"
#include "apps/table.h"
#include "apps/terminal.h"
#include "checkpoint/quantize_model.h"

namespace braid::apps {
namespace {

struct QuantizeCommand {
  std::string model;
  std::string out;
  std::string format;
  std::vector<std::string> exclude;
  int32_t threads = 0;
  bool errors = false;
};

void run_quantize(const QuantizeCommand& command) {
  Progress progress;
  QuantizeOptions options;
  options.format = command.format == "nvfp4" ? WeightFormat::kNvfp4 : WeightFormat::kFp8Block128;
  options.exclude = command.exclude;
  options.num_threads = command.threads;
  options.progress = [&](int64_t done, int64_t total) { progress.update("quantize", done, total); };
  auto report = quantize_checkpoint(command.model, command.out, options);
  progress.finish(report.has_value());
  if (!report) leave(report.error().message);

  double sum = 0;
  const ModuleError* worst = nullptr;
  for (const ModuleError& module : report->modules) {
    sum += module.relative_l2;
    if (worst == nullptr || module.relative_l2 > worst->relative_l2) worst = &module;
  }
  if (command.errors) {
    Table table({"module", "relative error"});
    for (const ModuleError& module : report->modules) {
      table.add({printable(module.module), fmt::format("{:.4f}", module.relative_l2)});
    }
    fmt::print("{}\n", table.to_string());
  }
  fmt::print(
      "{}: {} matrices in {}, {} -> {} ({:.0f} %)\n", command.out, report->modules.size(),
      command.format, human_bytes(static_cast<uint64_t>(report->bytes_before)),
      human_bytes(static_cast<uint64_t>(report->bytes_after)),
      100.0 * static_cast<double>(report->bytes_after) / static_cast<double>(report->bytes_before));
  if (worst != nullptr) {
    fmt::print("relative error of a matrix: mean {:.4f}, largest {:.4f} ({})\n",
               sum / static_cast<double>(report->modules.size()), worst->relative_l2,
               printable(worst->module));
  }
}

}  // namespace

void add_quantize(CLI::App& program) {
  auto command = std::make_shared<QuantizeCommand>();
  CLI::App* app = program.add_subcommand(
      "quantize", "Write an FP8 or NVFP4 copy of a checkpoint that other engines read too");
  app->footer(
      "\nAttention and MLP projections and experts are quantised; router, norms, embeddings and "
      "lm_head\n"
      "are copied as they are. DIR is there whole at the end, or not at all.\n\n"
      "Examples:\n"
      "  braid quantize model --format fp8 --out model-fp8\n"
      "  braid quantize model --format nvfp4 --exclude '*.self_attn.*' --out model-nvfp4");
  app->add_option("MODEL", command->model, "Folder of a BF16, F16 or F32 checkpoint")->required();
  app->add_option("--format", command->format,
                  "fp8: e4m3 with 128x128 scales; nvfp4: e2m1 with a scale for 16 columns")
      ->required()
      ->check(CLI::IsMember({"fp8", "nvfp4"}));
  app->add_option("--out", command->out, "Folder to write; must not exist or be empty")
      ->required()
      ->type_name("DIR");
  app->add_option("--exclude", command->exclude,
                  "Shell pattern of modules to copy as they are too; may be given several times")
      ->type_name("PATTERN")
      ->allow_extra_args(false);
  app->add_option("--threads", command->threads, "CPU threads; 0 takes every core allowed")
      ->capture_default_str();
  app->add_flag("--errors", command->errors, "Print the error of every matrix");
  app->callback([=] { run_quantize(*command); });
}

}  // namespace braid::apps

// braid inspect: what a checkpoint or an adapter folder holds, without loading it.

#include "adapter/inspect.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "apps/commands.h"
#include "apps/table.h"
#include "apps/terminal.h"
#include "base/json.h"
#include "checkpoint/inspect.h"

namespace braid::apps {
namespace {

namespace fs = std::filesystem;

struct InspectCommand {
  std::string folder;
  bool json = false;
};

void print_model(const CheckpointSummary& summary) {
  const ModelConfig& c = summary.config;
  fmt::print(
      "{}, {} layers, hidden {}, {} heads ({} for keys), head_dim {}, vocab {}, context {}\n",
      name(c.architecture), c.num_hidden_layers, c.hidden_size, c.num_attention_heads,
      c.num_key_value_heads, c.head_dim, c.vocab_size, c.max_position_embeddings);
  fmt::print("{} experts of width {}, {} a token\n", c.num_experts, c.moe_intermediate_size,
             c.top_k);
  fmt::print("{} parameters, {} active a token, {}; quantisation: {}\n\n",
             human_count(static_cast<uint64_t>(summary.parameters)),
             human_count(static_cast<uint64_t>(summary.active_parameters)),
             human_bytes(static_cast<uint64_t>(summary.bytes)), name(c.quant_method));
  Table table({"weights", "format", "count", "parameters", "bytes"});
  for (const RoleSummary& role : summary.roles) {
    table.add({std::string(name(role.role)), role.format, fmt::format("{}", role.count),
               human_count(static_cast<uint64_t>(role.parameters)),
               human_bytes(static_cast<uint64_t>(role.bytes))});
  }
  fmt::print("{}", table.to_string());
  if (!summary.has_weights)
    fmt::print("\nNo weights in this folder: formats are what config.json announces.\n");
}

// An adapter on its own: what its files say. How it is read needs the model: `braid validate`.
void print_adapter(const InspectCommand& command) {
  auto summary = inspect_adapter(command.folder);
  if (!summary) leave(summary.error().message);
  if (command.json) {
    fmt::print("{}\n", to_json(*summary).dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  fmt::print("{}\nHow it would be read: braid validate {} --model MODEL\n",
             printable(render(*summary)), printable(command.folder));
}

void run_inspect(const InspectCommand& command) {
  if (fs::exists(fs::path(command.folder) / "adapter_config.json")) return print_adapter(command);
  auto summary = inspect_checkpoint(command.folder);
  if (!summary) leave(summary.error().message);
  if (command.json) {
    fmt::print("{}\n", to_json(*summary).dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    print_model(*summary);
  }
}

}  // namespace

void add_inspect(CLI::App& program) {
  auto command = std::make_shared<InspectCommand>();
  CLI::App* app = program.add_subcommand("inspect", "What a checkpoint or an adapter folder holds");
  app->footer(
      "\nA folder with only a config.json is enough: formats are then what the config "
      "announces.\n\n"
      "Examples:\n"
      "  braid inspect configs/Qwen3-30B-A3B\n"
      "  braid inspect adapters/sql");
  app->add_option("FOLDER", command->folder, "Checkpoint or adapter folder")->required();
  app->add_flag("--json", command->json, "JSON instead of a table");
  app->callback([=] { run_inspect(*command); });
}

}  // namespace braid::apps

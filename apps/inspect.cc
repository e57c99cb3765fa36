// braid inspect: what a checkpoint or an adapter folder holds, without loading it.

#include "checkpoint/inspect.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "apps/commands.h"
#include "apps/table.h"
#include "apps/terminal.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

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
void inspect_adapter(const InspectCommand& command) {
  auto config = read_json_file(fs::path(command.folder) / "adapter_config.json");
  if (!config) leave(config.error().message);
  auto tensors = Safetensors::open_file(fs::path(command.folder) / "adapter_model.safetensors");
  if (!tensors) leave(tensors.error().message);
  std::map<std::string, int64_t> count_of_kind;
  int64_t parameters = 0;
  size_t bytes = 0;
  for (const auto& [tensor, view] : tensors->tensors()) {
    ++count_of_kind[fmt::format("{} {}", name(view.dtype), to_string(view.shape))];
    parameters += num_elements(view.shape);
    bytes += view.bytes.size();
  }
  if (command.json) {
    fmt::print("{}\n", Json{{"kind", "adapter"},
                            {"config", *config},
                            {"tensors", count_of_kind},
                            {"parameters", parameters},
                            {"bytes", bytes}}
                           .dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  fmt::print("adapter: {} tensors, {} parameters, {}\n", tensors->tensors().size(),
             human_count(static_cast<uint64_t>(parameters)), human_bytes(bytes));
  for (const char* key : {"peft_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora",
                          "target_modules", "target_parameters", "peft_version"}) {
    if (config->is_object() && config->contains(key)) {
      fmt::print("  {:<24} {}\n", key,
                 printable((*config)[key].dump(-1, ' ', false, Json::error_handler_t::replace)));
    }
  }
  Table table({"dtype and shape", "count"});
  for (const auto& [kind, count] : count_of_kind) table.add({kind, fmt::format("{}", count)});
  fmt::print("\n{}\nHow it would be read: braid validate {} --model MODEL\n", table.to_string(),
             printable(command.folder));
}

void run_inspect(const InspectCommand& command) {
  if (fs::exists(fs::path(command.folder) / "adapter_config.json")) return inspect_adapter(command);
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
      "\nA folder with only a config.json is enough: formats are then what the config announces.");
  app->add_option("FOLDER", command->folder, "Checkpoint or adapter folder")->required();
  app->add_flag("--json", command->json, "JSON instead of a table");
  app->callback([=] { run_inspect(*command); });
}

}  // namespace braid::apps

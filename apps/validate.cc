// braid validate: will an adapter work with a model, and how is it read.

#include "adapter/validate.h"

#include <fmt/format.h>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/terminal.h"
#include "base/json.h"

namespace braid::apps {
namespace {

struct ValidateCommand {
  std::string adapter;
  std::string model;
  std::string expert_layout = "auto";
  int32_t max_lora_rank = 256;
  bool json = false;
};

AdapterReadOptions read_options(const ValidateCommand& command) {
  AdapterReadOptions options;
  options.name = std::filesystem::path(command.adapter).filename().string();
  options.max_lora_rank = command.max_lora_rank;
  if (command.expert_layout == "peft") options.expert_layout = ExpertLayout::kPeft;
  if (command.expert_layout == "grouped") options.expert_layout = ExpertLayout::kGrouped;
  return options;
}

void run_validate(const ValidateCommand& command) {
  auto read = validate_adapter(command.adapter, command.model, read_options(command));
  if (command.json) {
    Json json;
    if (read) {
      json = to_json(read->report);
      json["valid"] = true;
      json["hash"] = to_string(read->adapter->hash);
    } else {
      json = {{"valid", false}, {"code", name(read.error().code)}, {"error", read.error().message}};
    }
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
    if (!read) throw CLI::RuntimeError(1);
    return;
  }
  const Terminal terminal = terminal_of(STDOUT_FILENO);
  if (!read)
    leave(fmt::format("{} cannot be used with {}: {}", command.adapter, command.model,
                      read.error().message));
  fmt::print("{} works with {}\n{}", green(terminal, printable(command.adapter)),
             printable(command.model), printable(render(read->report)));
}

}  // namespace

void add_validate(CLI::App& program) {
  auto command = std::make_shared<ValidateCommand>();
  CLI::App* app =
      program.add_subcommand("validate", "Will an adapter work with a model, and how is it read");
  app->footer(
      "\nReads every tensor as a server would, but no base weights: a folder with the model's "
      "config.json is\n"
      "enough. Exits 0 when the adapter works, 1 when it does not, with the reason.\n\n"
      "Example:\n  braid validate adapters/sql --model configs/Qwen3-30B-A3B");
  app->add_option("ADAPTER", command->adapter,
                  "Folder with adapter_config.json and adapter_model.safetensors")
      ->required();
  app->add_option("--model", command->model, "Checkpoint folder, or one with only its config.json")
      ->required();
  app->add_option("--lora-expert-layout", command->expert_layout,
                  "Column order of 3-D expert factors, where the files do not tell")
      ->check(CLI::IsMember({"auto", "peft", "grouped"}))
      ->capture_default_str();
  app->add_option("--max-lora-rank", command->max_lora_rank, "Adapters above it are refused")
      ->capture_default_str();
  app->add_flag("--json", command->json, "JSON instead of text");
  app->callback([=] { run_validate(*command); });
}

}  // namespace braid::apps

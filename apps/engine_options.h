#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "braid/engine.h"

namespace braid::apps {

// What `generate` and `bench` ask about the engine, with the help text of each option.
struct EngineOptions {
  EngineConfig config;
  std::vector<std::string> lora;  // NAME=PATH
  std::string expert_layout = "auto";
  std::string device = "auto";
  std::string dtype = "auto";
  std::string kv_cache = "auto";
  std::string gpu_adapters = "auto";
  std::string load_format = "auto";
  std::string dummy_weights = "bf16";
  bool no_prefix_caching = false;
};

// Adds MODEL and the options. `options` must outlive the parse.
void add_engine_options(CLI::App& command, EngineOptions& options);

// Opens the engine with a progress display and registers the adapters of --lora. What can be wrong
// with the options is found before the model is loaded.
//
// Errors  kInvalidArgument for an option that does not parse, those of parse_loras, Engine::open
// and
//         add_adapter
Result<std::unique_ptr<Engine>> open_engine(const EngineOptions& options);

// "1.5GiB", "512MiB", "800kB" or plain bytes.
//
// Errors  kInvalidArgument
Result<size_t> parse_bytes(const std::string& text);

struct NamedAdapter {
  std::string name;
  std::filesystem::path folder;
};

// "NAME=PATH". The name "base" is that of the model without an adapter.
//
// Errors  kInvalidArgument
Result<NamedAdapter> parse_lora(const std::string& text);

// Every --lora.
//
// Errors  kInvalidArgument (not NAME=PATH, a name twice)  kNotFound (no such folder)
Result<std::vector<NamedAdapter>> parse_loras(const std::vector<std::string>& texts);

}  // namespace braid::apps

#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "apps/engine_options.h"
#include "base/json.h"

namespace braid::apps {

// What the command line of `generate` says.
struct GenerateOptions {
  EngineOptions engine;
  std::vector<std::string> prompts;
  std::vector<std::string> chats;
  std::string system;                   // of every chat
  std::string input;                    // path of a file of JSON lines, - for stdin
  std::vector<std::string> adapters;    // that answer prompts and chats; none: the base model
  std::string template_options = "{}";  // JSON object
  Json sampling = Json::object();       // fields of sampling_from_json that were given
  bool json = false;
};

// Adds the options with their help. `options` must outlive the parse.
void add_generate_options(CLI::App& command, GenerateOptions& options);

// Errors  kInvalidArgument  nothing to do, an option that nothing would use, text that is not UTF-8
Status check_usage(const GenerateOptions& options);

}  // namespace braid::apps

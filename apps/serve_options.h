#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "apps/engine_options.h"
#include "base/result.h"
#include "server/request_log.h"
#include "server/server_config.h"

namespace braid::apps {

struct ServeOptions {
  EngineOptions engine;
  server::ServerConfig server;
  std::string max_body = "16MiB";
  std::string max_upload = "512MiB";
  std::string adapter_host_memory = "";
  std::string log_format = "text";
  std::vector<std::string> metrics_compat;
  std::string generation_config = "auto";
  double drain_timeout_s = 30;
};

void add_serve_options(CLI::App& command, ServeOptions& options);

// What follows from the options as they were given: sizes, names, keys of the environment.
//
// Errors  kInvalidArgument
Status complete(ServeOptions& options);

server::LogFormat log_format(const ServeOptions& options);

}  // namespace braid::apps

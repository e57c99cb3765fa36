#include "apps/serve_options.h"

#include <algorithm>
#include <chrono>

namespace braid::apps {
namespace {

void add_address_options(CLI::App& command, ServeOptions& options) {
  const char* group = "Address and access";
  server::ServerConfig& config = options.server;
  command.add_option("--host", config.host, "Address to listen on; 0.0.0.0 for every one")
      ->capture_default_str()
      ->group(group);
  command.add_option("--port", config.port, "0 takes a free one")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--served-model-name", config.model_names,
                  "What clients call the base model [the folder's name]; may be given many times")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--api-key", config.api_keys,
                  "Clients must send it as \"Authorization: Bearer KEY\"; may be given many times")
      ->type_name("KEY")
      ->envname("BRAID_API_KEY")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--admin-key", config.admin_key,
                  "The same for loading and unloading adapters and other control")
      ->type_name("KEY")
      ->envname("BRAID_ADMIN_KEY")
      ->group(group);
}

void add_adapter_options(CLI::App& command, ServeOptions& options) {
  const char* group = "Adapters";
  command
      .add_option("--adapter-root", options.server.adapter_root,
                  "Folder from which clients may load adapters, by path or by using the name of a "
                  "folder in it as model")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory)
      ->group(group);
  command
      .add_option("--adapter-host-memory", options.adapter_host_memory,
                  "Memory for adapters; the one used longest ago makes room [no limit]")
      ->type_name("BYTES")
      ->group(group);
  command
      .add_option("--max-running-per-adapter", options.engine.config.max_running_per_adapter,
                  "Requests of one adapter that run together; 0 is no limit")
      ->capture_default_str()
      ->group(group);
  command.add_option("--max-upload", options.max_upload, "Largest adapter in a request's body")
      ->type_name("BYTES")
      ->capture_default_str()
      ->group(group);
}

void add_limit_options(CLI::App& command, ServeOptions& options) {
  const char* group = "Limits";
  server::HttpLimits& limits = options.server.limits;
  command.add_option("--max-connections", limits.max_connections, "Beyond it clients get a 503")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-queued-requests", options.engine.config.max_queued_requests,
                  "Accepted and not started; beyond it clients get a 429")
      ->capture_default_str()
      ->group(group);
  command.add_option("--max-body", options.max_body, "Largest body of other requests")
      ->type_name("BYTES")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--drain-timeout", options.drain_timeout_s,
                  "Seconds that running requests get on SIGTERM")
      ->capture_default_str()
      ->group(group);
}

void add_observing_options(CLI::App& command, ServeOptions& options) {
  const char* group = "Logs and metrics";
  command
      .add_option("--log-format", options.log_format,
                  "A line a request on standard output; prompts and replies are never in it")
      ->check(CLI::IsMember({"text", "json", "none"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--metrics-compat", options.metrics_compat,
                  "Metrics under the names of these servers, too; commas between")
      ->type_name("vllm,sglang")
      ->delimiter(',')
      ->check(CLI::IsMember({"vllm", "sglang"}))
      ->group(group);
  command
      .add_option("--max-metric-adapters", options.server.max_metric_adapters,
                  "Adapters with metrics of their own; the others are counted together")
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void add_serve_options(CLI::App& command, ServeOptions& options) {
  add_engine_options(command, options.engine);
  add_address_options(command, options);
  add_adapter_options(command, options);
  add_limit_options(command, options);
  add_observing_options(command, options);
  command
      .add_option(
          "--generation-config", options.generation_config,
          "Where temperature, top_p and the like come from if a request says nothing: `auto` "
          "takes the model's generation_config.json, `none` the neutral values of the APIs")
      ->check(CLI::IsMember({"auto", "none"}))
      ->capture_default_str()
      ->group("Sampling");
}

Status complete(ServeOptions& options) {
  server::ServerConfig& config = options.server;
  auto max_body = parse_bytes(options.max_body);
  if (!max_body) return pass_on(max_body, "--max-body");
  config.limits.max_body_bytes = *max_body;
  auto max_upload = parse_bytes(options.max_upload);
  if (!max_upload) return pass_on(max_upload, "--max-upload");
  config.max_upload_bytes = *max_upload;
  if (!options.adapter_host_memory.empty()) {
    auto bytes = parse_bytes(options.adapter_host_memory);
    if (!bytes) return pass_on(bytes, "--adapter-host-memory");
    options.engine.config.adapter_host_bytes = *bytes;
  }
  if (config.limits.max_connections < 1)
    return fail(ErrorCode::kInvalidArgument, "--max-connections is {}, it must be at least 1",
                config.limits.max_connections);
  if (!(options.drain_timeout_s >= 0 && options.drain_timeout_s <= 86400))
    return fail(ErrorCode::kInvalidArgument, "--drain-timeout is {}, accepted is 0 to 86400",
                options.drain_timeout_s);
  config.drain_timeout =
      std::chrono::milliseconds(static_cast<int64_t>(options.drain_timeout_s * 1000));
  for (const std::string& key : config.api_keys) {
    if (key.empty()) return fail(ErrorCode::kInvalidArgument, "an --api-key is empty");
  }
  config.use_generation_config = options.generation_config == "auto";
  config.vllm_metrics = std::ranges::count(options.metrics_compat, "vllm") > 0;
  config.sglang_metrics = std::ranges::count(options.metrics_compat, "sglang") > 0;

  std::error_code unresolved;
  config.model_dir = std::filesystem::absolute(options.engine.config.model_dir, unresolved);
  if (config.model_names.empty()) {
    std::string folder = config.model_dir.lexically_normal().filename().string();
    if (folder.empty()) folder = config.model_dir.lexically_normal().parent_path().filename();
    config.model_names.push_back(folder.empty() ? "base" : folder);
  }
  auto loras = parse_loras(options.engine.lora);
  if (!loras) return pass_on(loras);
  for (const NamedAdapter& lora : *loras) {
    // It would never be reached.
    if (lora.name == "default" || std::ranges::count(config.model_names, lora.name) > 0)
      return fail(ErrorCode::kInvalidArgument,
                  "--lora: the name \"{}\" means the base model; take another, or another "
                  "--served-model-name",
                  lora.name);
  }
  if (!config.adapter_root.empty())
    config.adapter_root = std::filesystem::absolute(config.adapter_root, unresolved);
  options.engine.config.adapter_root = config.adapter_root;
  return {};
}

server::LogFormat log_format(const ServeOptions& options) {
  if (options.log_format == "none") return server::LogFormat::kNone;
  return options.log_format == "json" ? server::LogFormat::kJson : server::LogFormat::kText;
}

}  // namespace braid::apps

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "server/http/http_server.h"

namespace braid::server {

struct ServerConfig {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: a free one

  std::vector<std::string> model_names;  // of the base model; the first is its id
  std::filesystem::path model_dir;
  std::filesystem::path adapter_root;  // where adapters may be loaded from; "": from nowhere
  bool use_generation_config = true;   // the model's defaults for temperature, top_p and so on

  std::vector<std::string> api_keys;
  std::string admin_key;

  HttpLimits limits;
  size_t max_upload_bytes = size_t{512} << 20;  // of an adapter in a request's body
  int32_t max_choices = 1024;                   // prompts times samples of one request
  std::chrono::milliseconds drain_timeout{30'000};

  bool vllm_metrics = false;  // the metrics under these servers' names, too
  bool sglang_metrics = false;
  int32_t max_metric_adapters = 100;  // adapters with labels of their own; the rest is "other"
};

}  // namespace braid::server

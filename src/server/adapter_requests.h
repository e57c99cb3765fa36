#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "braid/engine.h"
#include "server/api_error.h"
#include "server/http/message.h"
#include "server/server_config.h"

namespace braid::server {

// What a client asks to load, whichever route it came by.
struct AdapterLoad {
  std::string name;
  std::filesystem::path folder;  // "" where the files are in the request
  std::string config_json;
  std::string safetensors;
  AdapterOptions options;
};

// vLLM: lora_name, lora_path, load_inplace. SGLang: lora_name, lora_path, pinned. Our own:
// share, see AdapterOptions. Paths that are not absolute start at the adapter root.
//
// Errors  400  403 (no adapter root)
ApiResult<AdapterLoad> read_load_request(const std::string& body, const ServerConfig& config);

// SGLang's load from tensors: lora_name, config_dict, pinned, and serialized_tensors as a
// safetensors file in base64 (load_format "safetensors"), whole or as a list of pieces.
//
// Errors  400  a pickle above all: no bytes of a request are ever run
ApiResult<AdapterLoad> read_tensors_request(const std::string& body, const ServerConfig& config);

// PUT /v1/adapters/NAME with the two files of a PEFT folder as multipart/form-data.
//
// Errors  400
ApiResult<AdapterLoad> read_upload(const HttpRequest& request, const ServerConfig& config);

// "lora_name" of a body.
//
// Errors  400
ApiResult<std::string> read_lora_name(const std::string& body);

}  // namespace braid::server

#include "server/adapter_requests.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "server/base64.h"
#include "server/generation_request.h"
#include "server/json_fields.h"
#include "server/json_text.h"
#include "server/multipart.h"
#include "text/utf8.h"

namespace braid::server {
namespace {

tl::unexpected<ApiError> bad(std::string message, std::string param = "", int status = 400) {
  return tl::unexpected<ApiError>(
      {.status = status, .message = std::move(message), .param = std::move(param)});
}

void read_name(JsonFields& fields, std::string& name) {
  fields.read_string("lora_name", name);
  if (name.empty()) fields.complain("lora_name", "lora_name is missing or empty");
}

// A name that means the base model would never be reached.
std::optional<ApiError> why_not_name(const std::string& name, const ServerConfig& config) {
  if (name == "default" || std::ranges::count(config.model_names, name) > 0) {
    return ApiError{.message = fmt::format("the name \"{}\" means the base model", name),
                    .param = "lora_name"};
  }
  if (text::find_broken_utf8(name) != name.npos)
    return ApiError{.message = "the adapter's name is not UTF-8", .param = "lora_name"};
  return std::nullopt;
}

}  // namespace

ApiResult<AdapterLoad> read_load_request(const std::string& body, const ServerConfig& config) {
  auto json = parse_body(body);
  if (!json) return tl::unexpected<ApiError>(std::move(json.error()));
  JsonFields fields(*json);
  AdapterLoad load;
  std::string path;
  bool replaces = false;
  read_name(fields, load.name);
  fields.read_string("lora_path", path);
  if (path.empty()) fields.complain("lora_path", "lora_path is missing or empty");
  fields.read_bool("load_inplace", replaces);
  fields.read_bool("pinned", load.options.pinned);
  fields.read_number("share", load.options.share);
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  if (auto error = why_not_name(load.name, config)) return tl::unexpected<ApiError>(*error);
  if (config.adapter_root.empty()) {
    return bad(
        "loading by path needs a server that was started with --adapter-root; an adapter "
        "can also be sent in the body, PUT /v1/adapters/NAME",
        "lora_path", 403);
  }
  if (path.find('\0') != path.npos) return bad("lora_path has a NUL", "lora_path");
  load.folder = config.adapter_root / path;  // an absolute path stands for itself
  load.options.confined = true;
  if (replaces) load.options.mode = LoadMode::kNewOrReplace;
  return load;
}

ApiResult<AdapterLoad> read_tensors_request(const std::string& body, const ServerConfig& config) {
  auto json = parse_body(body);
  if (!json) return tl::unexpected<ApiError>(std::move(json.error()));
  JsonFields fields(*json);
  AdapterLoad load;
  read_name(fields, load.name);
  fields.read_bool("pinned", load.options.pinned);
  bool replaces = false;
  fields.read_bool("load_inplace", replaces);
  if (replaces) load.options.mode = LoadMode::kNewOrReplace;
  std::string format;
  fields.read_string("load_format", format);
  if (format != "safetensors") {
    fields.complain("load_format",
                    fmt::format("load_format is \"{}\", accepted is \"safetensors\": the file's "
                                "bytes in base64; pickled tensors are never read",
                                format));
  }
  if (const Json* config_dict = fields.find("config_dict"); config_dict == nullptr) {
    fields.complain("config_dict", "config_dict is missing: the object of adapter_config.json");
  } else if (!config_dict->is_object()) {
    fields.complain_of("config_dict", *config_dict, "an object");
  } else {
    load.config_json = json_text(*config_dict);
  }
  std::vector<std::string> pieces;
  const Json* tensors = fields.find("serialized_tensors");
  if (tensors == nullptr) {
    fields.complain("serialized_tensors", "serialized_tensors is missing");
  } else if (tensors->is_string()) {
    pieces.push_back(tensors->get<std::string>());
  } else {
    fields.read("serialized_tensors", pieces, "a string or a list of strings");
  }
  for (const std::string& piece : pieces) {
    std::string bytes;
    if (!base64_decode(piece, bytes))
      fields.complain("serialized_tensors", "serialized_tensors is not base64");
    load.safetensors += bytes;
  }
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  if (auto error = why_not_name(load.name, config)) return tl::unexpected<ApiError>(*error);
  return load;
}

ApiResult<AdapterLoad> read_upload(const HttpRequest& request, const ServerConfig& config) {
  AdapterLoad load = {.name = request.tail};
  load.options.mode = LoadMode::kNewOrReplace;
  if (auto error = why_not_name(load.name, config)) return tl::unexpected<ApiError>(*error);
  auto parts = split_form(request.header("content-type"), request.body);
  if (!parts) return tl::unexpected<ApiError>(std::move(parts.error()));
  bool has_config = false, has_weights = false;
  for (const FormPart& part : *parts) {
    if (part.name == "adapter_config" || part.file_name == "adapter_config.json") {
      load.config_json = part.data;
      has_config = true;
    } else if (part.name == "adapter_model" || part.file_name == "adapter_model.safetensors") {
      load.safetensors = part.data;
      has_weights = true;
    } else if (part.name == "pinned") {
      load.options.pinned = part.data == "true";
    } else {
      return bad(
          fmt::format("there is a part \"{}\"; accepted are adapter_config (the file "
                      "adapter_config.json), adapter_model (adapter_model.safetensors) and "
                      "pinned",
                      part.name.substr(0, 100)));
    }
  }
  if (!has_config) return bad("the part adapter_config is missing", "adapter_config");
  if (!has_weights) return bad("the part adapter_model is missing", "adapter_model");
  return load;
}

ApiResult<std::string> read_lora_name(const std::string& body) {
  auto json = parse_body(body);
  if (!json) return tl::unexpected<ApiError>(std::move(json.error()));
  JsonFields fields(*json);
  std::string name;
  read_name(fields, name);
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  return name;
}

}  // namespace braid::server

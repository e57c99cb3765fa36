#include "checkpoint/quant_files.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "base/file.h"
#include "base/json.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

bool is_weight_file(std::string_view name) {
  for (const std::string_view end : {".safetensors", ".safetensors.index.json", ".bin",
                                     ".bin.index.json", ".pt", ".pth", ".gguf"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

// Norms are no linear layers; readers expect linear modules (and the embedding) alone.
std::vector<std::string> linear_modules(const std::vector<std::string>& modules) {
  std::vector<std::string> out;
  for (const std::string& module : modules) {
    if (!module.ends_with("norm")) out.push_back(module);
  }
  return out;
}

Json fp8_config(const std::vector<std::string>& kept) {
  return {{"quant_method", "fp8"},
          {"fmt", "e4m3"},
          {"activation_scheme", "dynamic"},
          {"weight_block_size", {128, 128}},
          {"modules_to_not_convert", kept}};
}

Json modelopt_config(const std::vector<std::string>& kept) {
  const Json weights = {{"num_bits", 4}, {"type", "float"}, {"group_size", 16}, {"dynamic", false}};
  return {{"quant_method", "modelopt"},
          {"quant_algo", "W4A16_NVFP4"},
          {"producer", {{"name", "braid"}}},
          {"config_groups",
           {{"group_0", {{"weights", weights}, {"targets", Json::array({"Linear"})}}}}},
          {"ignore", kept}};
}

Json hf_quant_config(const std::vector<std::string>& kept) {
  return {{"producer", {{"name", "braid"}}},
          {"quantization",
           {{"quant_algo", "W4A16_NVFP4"},
            {"kv_cache_quant_algo", nullptr},
            {"group_size", 16},
            {"exclude_modules", kept}}}};
}

}  // namespace

Status check_out_dir(const fs::path& out_dir) {
  std::error_code error;
  const auto status = fs::status(out_dir, error);
  if (status.type() == fs::file_type::not_found) return {};
  if (status.type() == fs::file_type::directory && fs::is_empty(out_dir, error) && !error)
    return {};
  return fail(ErrorCode::kInvalidArgument,
              "{}: exists already, a new or empty folder is expected for the result",
              out_dir.string());
}

Result<fs::path> make_temporary_folder(const fs::path& out_dir) {
  std::string path = out_dir.string();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::error_code error;
  const fs::path parent = fs::path(path).parent_path();
  if (!parent.empty()) fs::create_directories(parent, error);
  if (error) {
    return fail(ErrorCode::kIo, "{}: cannot create the folder: {}", parent.string(),
                error.message());
  }
  path += ".partial-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return fail(ErrorCode::kIo, "{}: cannot create a folder beside it: {}", out_dir.string(),
                std::strerror(errno));
  }
  return fs::path(path);
}

Status publish_folder(const fs::path& temporary, const fs::path& out_dir) {
  std::error_code error;
  fs::permissions(temporary, static_cast<fs::perms>(0755), error);
  if (!error) fs::rename(temporary, out_dir, error);
  if (!error) return {};
  return fail(ErrorCode::kIo, "{}: cannot rename the finished folder to it: {}", out_dir.string(),
              error.message());
}

Status copy_other_files(const fs::path& from, const fs::path& to) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(from, error)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file(error) || name.starts_with('.') || is_weight_file(name) ||
        name == "config.json" || name == "hf_quant_config.json") {
      continue;
    }
    fs::copy_file(entry.path(), to / name, error);
    if (error) {
      return fail(ErrorCode::kIo, "{}: cannot copy: {}", entry.path().string(), error.message());
    }
  }
  if (error) return fail(ErrorCode::kIo, "{}: cannot list: {}", from.string(), error.message());
  return {};
}

Status write_quantized_config(const fs::path& from, const fs::path& to, WeightFormat format,
                              const std::vector<std::string>& kept) {
  auto config = read_json_file(from / "config.json");
  if (!config) return pass_on(config);
  const auto modules = linear_modules(kept);
  const bool is_nvfp4 = format == WeightFormat::kNvfp4;
  (*config)["quantization_config"] = is_nvfp4 ? modelopt_config(modules) : fp8_config(modules);
  if (is_nvfp4) {
    auto written = write_file(to / "hf_quant_config.json", hf_quant_config(modules).dump(2) + "\n");
    if (!written) return written;
  }
  return write_file(to / "config.json", config->dump(2) + "\n");
}

}  // namespace braid

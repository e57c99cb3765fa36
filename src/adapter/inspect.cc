#include "adapter/inspect.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "adapter/adapter_file.h"
#include "adapter/lora_tensor_name.h"
#include "base/json.h"

namespace braid {
namespace {

// "layers.3.mlp.experts.12.w1" -> "layers.*.mlp.experts.*.w1"
std::string without_numbers(const std::string& name) {
  std::string out;
  for (size_t i = 0; i < name.size();) {
    const size_t dot = std::min(name.find('.', i), name.size());
    const std::string part = name.substr(i, dot - i);
    const bool is_number = !part.empty() && part.find_first_not_of("0123456789") == part.npos;
    out += is_number ? "*" : part;
    if (dot < name.size()) out += '.';
    i = dot + 1;
  }
  return out;
}

std::string_view part_name(LoraTensorPart part) {
  switch (part) {
    case LoraTensorPart::kA:
      return "lora_A";
    case LoraTensorPart::kB:
      return "lora_B";
    case LoraTensorPart::kBaseCopy:
      return "copy of the base table";
  }
  return "";
}

}  // namespace

Result<AdapterSummary> inspect_adapter(const std::filesystem::path& folder) {
  AdapterSummary summary;
  auto config = read_lora_config(folder);
  if (!config) return pass_on(config);
  summary.config = std::move(*config);
  auto tensors = open_adapter_tensors(folder);
  if (!tensors) return pass_on(tensors);

  std::map<std::tuple<std::string, std::string, std::string>, int64_t> counts;
  for (const auto& [tensor, view] : tensors->tensors()) {
    auto name = parse_lora_tensor_name(tensor);
    if (!name) return pass_on(name, folder.string());
    const std::string group =
        fmt::format("{}.{}", without_numbers(name->plain_name), part_name(name->part));
    ++counts[{group, std::string(braid::name(view.dtype)), to_string(view.shape)}];
    ++summary.num_tensors;
    summary.num_parameters += num_elements(view.shape);
    summary.bytes += view.bytes.size();
  }
  for (const auto& [key, count] : counts) {
    summary.groups.push_back({.name = std::get<0>(key),
                              .dtype = std::get<1>(key),
                              .shape = std::get<2>(key),
                              .count = count});
  }
  return summary;
}

Json to_json(const AdapterSummary& summary) {
  Json groups = Json::array();
  for (const AdapterTensorGroup& group : summary.groups) {
    groups.push_back({{"name", group.name},
                      {"dtype", group.dtype},
                      {"shape", group.shape},
                      {"count", group.count}});
  }
  const LoraConfig& config = summary.config;
  return {{"r", config.r},
          {"lora_alpha", config.lora_alpha},
          {"use_rslora", config.use_rslora},
          {"num_rank_patterns", config.rank_pattern.size()},
          {"num_alpha_patterns", config.alpha_pattern.size()},
          {"target_modules", config.target_modules},
          {"target_parameters", config.target_parameters},
          {"base_model_name_or_path", config.base_model_name_or_path},
          {"peft_version", config.peft_version},
          {"tensors", groups},
          {"num_tensors", summary.num_tensors},
          {"num_parameters", summary.num_parameters},
          {"bytes", summary.bytes},
          {"warnings", config.warnings}};
}

std::string render(const AdapterSummary& summary) {
  const LoraConfig& config = summary.config;
  std::string out = fmt::format("LoRA adapter, r {}, lora_alpha {}{}\n", config.r,
                                config.lora_alpha, config.use_rslora ? ", rsLoRA" : "");
  if (!config.rank_pattern.empty() || !config.alpha_pattern.empty()) {
    out += fmt::format("{} rank patterns, {} alpha patterns\n", config.rank_pattern.size(),
                       config.alpha_pattern.size());
  }
  if (!config.base_model_name_or_path.empty()) {
    out += fmt::format("trained on {}\n", config.base_model_name_or_path);
  }
  if (!config.peft_version.empty()) out += fmt::format("peft {}\n", config.peft_version);
  for (const AdapterTensorGroup& group : summary.groups) {
    out +=
        fmt::format("  {:<56} {:>6} x {} {}\n", group.name, group.count, group.dtype, group.shape);
  }
  out += fmt::format("{} parameters in {} tensors, {:.1f} MB\n", summary.num_parameters,
                     summary.num_tensors, static_cast<double>(summary.bytes) / 1e6);
  for (const std::string& warning : config.warnings) out += fmt::format("warning: {}\n", warning);
  return out;
}

}  // namespace braid

#include "adapter/target_check.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "adapter/pattern_table.h"

namespace braid {
namespace {

constexpr size_t kMaxListed = 8;

std::string shorten(const std::string& text) {
  return text.size() <= 120 ? text : text.substr(0, 117) + "...";
}

// "1, 2, 3", cut off after some.
template <class T>
std::string list_some(const std::set<T>& items) {
  std::vector<T> some;
  for (const T& item : items) {
    if (some.size() < kMaxListed) some.push_back(item);
  }
  return fmt::format("{}{}", fmt::join(some, ", "), items.size() > kMaxListed ? ", ..." : "");
}

// "a.b.c", "b.c", "c"
template <class Do>
void for_each_end(std::string_view name, Do&& body) {
  for (;;) {
    body(name);
    const size_t dot = name.find('.');
    if (dot == name.npos) return;
    name.remove_prefix(dot + 1);
  }
}

// Names by whole name or dotted end.
class Names {
 public:
  Names() = default;
  explicit Names(const std::vector<std::string>& names) : names_(names.begin(), names.end()) {}

  bool has(std::string_view name) const {
    bool found = false;
    for_each_end(name, [&](std::string_view end) { found |= names_.contains(std::string(end)); });
    return found;
  }

 private:
  std::unordered_set<std::string> names_;
};

// transformers 5 calls Mixtral's block mlp, adapters for it are written under both names.
std::string with_one_block_name(std::string name) {
  constexpr std::string_view kOther = "block_sparse_moe";
  if (const size_t at = name.find(kOther); at != name.npos) name.replace(at, kOther.size(), "mlp");
  return name;
}

// The name that target_parameters would use: "model.layers.0.mlp.experts.down_proj",
// "...gate.weight"
std::string parameter_name(const TrainedModule& module) {
  if (module.parameter.empty()) return with_one_block_name(module.name) + ".weight";
  std::string name = with_one_block_name(module.name);
  while (name.ends_with(".base_layer")) name.resize(name.size() - 11);
  return name + "." + module.parameter;
}

class TargetCheck {
 public:
  TargetCheck(const LoraConfig& config, std::span<const TrainedModule> modules)
      : config_(config), modules_(modules) {
    for (const std::string& target : config.target_parameters) {
      parameters_.push_back(with_one_block_name(target));
    }
    parameter_names_ = Names(parameters_);
  }

  std::vector<std::string> run() {
    check_target_modules();
    check_target_parameters();
    check_exclude_modules();
    check_layers();
    return std::move(warnings_);
  }

 private:
  void check_target_modules();
  void check_target_parameters();
  void check_exclude_modules();
  void check_layers();

  // A parameter, or a module that holds one, such as a router or experts by shape.
  bool is_target_parameter(const TrainedModule& module) const {
    return parameter_names_.has(parameter_name(module)) ||
           (module.parameter.empty() && parameter_names_.has(with_one_block_name(module.name)));
  }
  // Entries of a list of the config that nothing in the file bears.
  void warn_of_unused(const char* key, const std::vector<std::string>& targets,
                      const std::vector<std::string>& shown, const std::vector<std::string>& names);
  // Last parts of the names of modules for which `is_one` holds; 3-D parameters are no modules.
  template <class IsOne>
  std::set<std::string> last_parts(IsOne&& is_one) const;
  // Those that a regular expression of the config matches, or does not; nothing where it cannot be
  // used, which is a warning.
  std::optional<std::set<std::string>> last_parts_matching(const char* key,
                                                           const std::string& regex, bool matching);

  const LoraConfig& config_;
  const std::span<const TrainedModule> modules_;
  std::vector<std::string> parameters_;  // target_parameters under one name of the block
  Names parameter_names_;
  std::vector<std::string> warnings_;
};

void TargetCheck::warn_of_unused(const char* key, const std::vector<std::string>& targets,
                                 const std::vector<std::string>& shown,
                                 const std::vector<std::string>& names) {
  std::unordered_set<std::string_view> ends;
  for (const std::string& name : names) {
    for_each_end(name, [&](std::string_view end) { ends.insert(end); });
  }
  size_t num_unused = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (ends.contains(targets[i]) || num_unused++ >= kMaxListed) continue;
    warnings_.push_back(
        fmt::format("{} names {}, but the file has no factors for it", key, shorten(shown[i])));
  }
  if (num_unused > kMaxListed) {
    warnings_.push_back(fmt::format("{} names {} more that the file has no factors for", key,
                                    num_unused - kMaxListed));
  }
}

template <class IsOne>
std::set<std::string> TargetCheck::last_parts(IsOne&& is_one) const {
  std::set<std::string> parts;
  for (const TrainedModule& module : modules_) {
    if (module.parameter.empty() && is_one(module)) {
      parts.insert(module.name.substr(module.name.rfind('.') + 1));
    }
  }
  return parts;
}

std::optional<std::set<std::string>> TargetCheck::last_parts_matching(const char* key,
                                                                      const std::string& regex,
                                                                      bool matching) {
  // "^" keeps a PatternTable from trying dotted ends.
  auto table = PatternTable::make({{"^(?:" + regex + ")", 0}}, key);
  std::string problem = table ? "" : table.error().message;
  std::set<std::string> parts;
  if (table) {
    parts = last_parts([&](const TrainedModule& module) {
      if (!problem.empty()) return false;
      auto found = table->find_any({module.name, "model." + module.plain_name});
      if (!found) problem = found.error().message;
      return found && found->has_value() == matching;
    });
  }
  if (problem.empty()) return parts;
  warnings_.push_back(fmt::format("{} is not compared with the tensors: {}", key, problem));
  return {};
}

void TargetCheck::check_target_modules() {
  std::set<std::string> unnamed;
  if (!config_.target_modules.empty()) {
    std::vector<std::string> names;
    for (const TrainedModule& module : modules_) names.push_back(module.name);
    warn_of_unused("target_modules", config_.target_modules, config_.target_modules, names);
    const Names targets(config_.target_modules);
    unnamed = last_parts([&](const TrainedModule& module) {
      return !targets.has(module.name) && !is_target_parameter(module);
    });
  } else if (const std::string& regex = config_.target_modules_regex;
             !regex.empty() && regex != "all-linear") {
    auto unmatched = last_parts_matching("target_modules", regex, /*matching=*/false);
    if (unmatched) unnamed = std::move(*unmatched);
  }
  for (const std::string& name : unnamed) {
    warnings_.push_back(fmt::format(
        "the file has factors for {}, which target_modules does not name; they are applied", name));
  }
}

void TargetCheck::check_target_parameters() {
  if (parameters_.empty()) return;
  std::vector<std::string> names;
  std::set<std::string> unnamed;
  for (const TrainedModule& module : modules_) {
    names.push_back(parameter_name(module));
    if (!module.parameter.empty() && !is_target_parameter(module)) unnamed.insert(module.parameter);
    if (module.parameter.empty()) names.push_back(with_one_block_name(module.name));
  }
  warn_of_unused("target_parameters", parameters_, config_.target_parameters, names);
  for (const std::string& name : unnamed) {
    warnings_.push_back(fmt::format(
        "the file has 3-D factors for {}, which target_parameters does not name; they are applied",
        name));
  }
}

void TargetCheck::check_exclude_modules() {
  std::set<std::string> excluded;
  if (!config_.exclude_modules.empty()) {
    const Names names(config_.exclude_modules);
    excluded = last_parts([&](const TrainedModule& module) { return names.has(module.name); });
  } else if (!config_.exclude_modules_regex.empty()) {
    auto matched =
        last_parts_matching("exclude_modules", config_.exclude_modules_regex, /*matching=*/true);
    if (matched) excluded = std::move(*matched);
  }
  if (excluded.empty()) return;
  warnings_.push_back(
      fmt::format("exclude_modules rules out {}, but the file has factors for it; they are applied",
                  list_some(excluded)));
}

// PEFT leaves 3-D parameters alone here: they are trained in every layer.
void TargetCheck::check_layers() {
  if (config_.layers_to_transform.empty()) return;
  const std::set<int64_t> named(config_.layers_to_transform.begin(),
                                config_.layers_to_transform.end());
  std::set<int64_t> unnamed, unused = named;
  for (const TrainedModule& module : modules_) {
    if (module.layer < 0) continue;
    unused.erase(module.layer);
    const bool is_module = module.parameter.empty() && !is_target_parameter(module);
    if (is_module && !named.contains(module.layer)) unnamed.insert(module.layer);
  }
  if (!unnamed.empty()) {
    warnings_.push_back(
        fmt::format("layers_to_transform does not name layer {}, but the file has factors there; "
                    "they are applied",
                    list_some(unnamed)));
  }
  if (!unused.empty()) {
    warnings_.push_back(
        fmt::format("layers_to_transform names layer {}, but the file has no factors there",
                    list_some(unused)));
  }
  if (config_.layers_pattern.empty()) return;
  std::vector<PatternEntry> patterns;
  for (const std::string& pattern : config_.layers_pattern) patterns.push_back({pattern, 0});
  Result<std::optional<double>> found;
  if (auto table = PatternTable::make(patterns, "layers_pattern"); table) {
    found = table->find("layers");
  } else {
    found = pass_on(table);
  }
  if (!found) {
    warnings_.push_back(
        fmt::format("layers_pattern is not compared with the tensors: {}", found.error().message));
  } else if (!*found) {
    warnings_.push_back(
        fmt::format("layers_pattern is {}, but the file's layers are called layers; they are "
                    "applied",
                    shorten(fmt::format("{}", fmt::join(config_.layers_pattern, ", ")))));
  }
}

}  // namespace

std::vector<std::string> cross_check_targets(const LoraConfig& config,
                                             std::span<const TrainedModule> modules) {
  return TargetCheck(config, modules).run();
}

}  // namespace braid

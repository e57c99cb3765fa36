#include "apps/engine_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "apps/progress.h"
#include "apps/terminal.h"
#include "base/result.h"

namespace braid::apps {
namespace {

AdapterExpertLayout expert_layout(const std::string& text) {
  if (text == "peft") return AdapterExpertLayout::kPeft;
  if (text == "grouped") return AdapterExpertLayout::kGrouped;
  return AdapterExpertLayout::kAuto;
}

DummyWeights dummy_weights(const std::string& text) {
  if (text == "fp8") return DummyWeights::kFp8;
  if (text == "nvfp4") return DummyWeights::kNvfp4;
  return DummyWeights::kBf16;
}

Device device(const std::string& text) {
  if (text == "cpu") return Device::kCpu;
  if (text == "cuda") return Device::kCuda;
  return Device::kAuto;
}

ActivationDtype activation_dtype(const std::string& text) {
  if (text == "float32") return ActivationDtype::kFloat32;
  if (text == "bfloat16") return ActivationDtype::kBfloat16;
  return ActivationDtype::kAuto;
}

// 0 for "auto".
Result<size_t> parse_bytes_or_auto(const std::string& text) {
  if (text == "auto") return 0;
  return parse_bytes(text);
}

// What whoever uses the adapter should hear of it, a line each.
std::string adapter_notes(const std::string& name, const AdapterReport& report) {
  std::string notes;
  if (report.layout_inferred) {
    notes += fmt::format("braid: adapter \"{}\": read as {} ({})\n", name, report.layout,
                         fmt::join(report.evidence, "; "));
  }
  for (const std::string& warning : report.warnings) {
    notes += fmt::format("braid: adapter \"{}\": warning: {}\n", name, warning);
  }
  return notes;
}

}  // namespace

void add_engine_options(CLI::App& command, EngineOptions& options) {
  EngineConfig& config = options.config;
  command.add_option("MODEL", config.model_dir, "Folder of a Hugging Face checkpoint")->required();

  const char* adapters = "Adapters";
  command
      .add_option("--lora", options.lora,
                  "A PEFT adapter folder under a name; may be given many times")
      ->type_name("NAME=PATH")
      ->allow_extra_args(false)
      ->group(adapters);
  command
      .add_option("--lora-expert-layout", options.expert_layout,
                  "Column order of 3-D expert factors, where the files do not tell")
      ->check(CLI::IsMember({"auto", "peft", "grouped"}))
      ->capture_default_str()
      ->group(adapters);
  command.add_option("--max-adapters", config.max_adapters, "Different adapters in one step")
      ->capture_default_str()
      ->group(adapters);
  command.add_option("--max-lora-rank", config.max_lora_rank, "Adapters above it are refused")
      ->capture_default_str()
      ->group(adapters);

  command
      .add_option("--gpu-adapters", options.gpu_adapters,
                  "GPU memory for adapters; auto takes a tenth of it")
      ->type_name("BYTES")
      ->capture_default_str()
      ->group(adapters);

  const char* engine = "Engine";
  command
      .add_option("--device", options.device,
                  "cuda (a Hopper GPU), cpu, or auto: the GPU where it can run the model")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str()
      ->group(engine);
  command
      .add_option("--dtype", options.dtype,
                  "Of activations; auto: bfloat16 on a GPU, float32 on a CPU. bfloat16 on a CPU "
                  "rounds where a GPU does")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->capture_default_str()
      ->group(engine);
  command
      .add_option("--gpu-memory-fraction", config.gpu_memory_fraction,
                  "Share of the GPU's memory that may be used")
      ->capture_default_str()
      ->group(engine);
  command.add_option("--threads", config.num_threads, "CPU threads; 0 takes every core allowed")
      ->capture_default_str()
      ->group(engine);
  command.add_option("--max-batch-size", config.max_batch_size, "Requests that run together")
      ->capture_default_str()
      ->group(engine);
  command
      .add_option("--max-batch-tokens", config.max_batch_tokens,
                  "Tokens of one step; longer prompts are cut into chunks")
      ->capture_default_str()
      ->group(engine);
  command
      .add_option("--max-context", config.max_context,
                  "Tokens of prompt and reply together; 0 takes the model's own limit")
      ->capture_default_str()
      ->group(engine);
  command
      .add_option("--kv-cache", options.kv_cache,
                  "Memory for keys and values; auto: what the GPU has left, or 1 GiB on the CPU")
      ->type_name("BYTES")
      ->capture_default_str()
      ->group(engine);
  command.add_flag("--no-prefix-caching", options.no_prefix_caching, "Compute every prompt anew")
      ->group(engine);
  command
      .add_option("--load-format", options.load_format,
                  "`dummy` makes random weights from config.json alone")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str()
      ->group(engine);
  command
      .add_option("--dummy-weights", options.dummy_weights, "Their format with --load-format dummy")
      ->check(CLI::IsMember({"bf16", "fp8", "nvfp4"}))
      ->capture_default_str()
      ->group(engine);
}

Result<std::unique_ptr<Engine>> open_engine(const EngineOptions& options) {
  EngineConfig config = options.config;
  auto kv_cache_bytes = parse_bytes_or_auto(options.kv_cache);
  if (!kv_cache_bytes) return pass_on(kv_cache_bytes, "--kv-cache");
  config.kv_cache_bytes = *kv_cache_bytes;
  auto adapter_bytes = parse_bytes_or_auto(options.gpu_adapters);
  if (!adapter_bytes) return pass_on(adapter_bytes, "--gpu-adapters");
  config.adapter_device_bytes = *adapter_bytes;
  config.device = device(options.device);
  config.activation_dtype = activation_dtype(options.dtype);
  config.prefix_caching = !options.no_prefix_caching;
  config.load_format = options.load_format == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto;
  config.dummy_weights = dummy_weights(options.dummy_weights);

  auto loras = parse_loras(options.lora);
  if (!loras) return pass_on(loras, "--lora");

  auto progress = std::make_shared<Progress>();
  config.on_progress = [progress](std::string_view what, int64_t done, int64_t total) {
    progress->update(what, done, total);
  };
  auto engine = Engine::open(config);
  progress->finish(engine.has_value());
  if (!engine) return pass_on(engine);

  int64_t num_loaded = 0;
  std::string notes;  // shown after the progress line
  for (const auto& [name, folder] : *loras) {
    progress->update("load adapters", num_loaded++, static_cast<int64_t>(loras->size()));
    auto id =
        (*engine)->add_adapter(name, folder, {.layout = expert_layout(options.expert_layout)});
    if (!id) {
      progress->finish(false);
      return pass_on(id);
    }
    if (auto report = (*engine)->adapter_report(*id)) notes += adapter_notes(name, *report);
  }
  progress->finish(true);
  write_err(printable(notes));
  return engine;
}

Result<size_t> parse_bytes(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const std::string unit(rest, end);
  static const std::map<std::string, double> kUnits = {
      {"", 1},         {"B", 1},        {"kB", 1e3},     {"MB", 1e6},    {"GB", 1e9},
      {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  const auto factor = kUnits.find(unit);
  if (error != std::errc() || factor == kUnits.end() || !(value > 0) ||
      value * factor->second > 0x1p60) {
    return fail(ErrorCode::kInvalidArgument,
                "\"{}\" is not a size; write for example 2GiB, 512MiB or 1000000", text);
  }
  return static_cast<size_t>(value * factor->second);
}

Result<NamedAdapter> parse_lora(const std::string& text) {
  const size_t at = text.find('=');
  if (at == 0 || at == text.npos || at + 1 == text.size()) {
    return fail(ErrorCode::kInvalidArgument,
                "\"{}\" is not NAME=PATH; write for example sql=adapters/sql", text);
  }
  NamedAdapter adapter = {.name = text.substr(0, at), .folder = text.substr(at + 1)};
  if (adapter.name == "base") {
    return fail(ErrorCode::kInvalidArgument,
                "the name \"base\" in \"{}\" means the model without an adapter; choose another",
                text);
  }
  return adapter;
}

Result<std::vector<NamedAdapter>> parse_loras(const std::vector<std::string>& texts) {
  std::vector<NamedAdapter> adapters;
  for (const std::string& text : texts) {
    auto adapter = parse_lora(text);
    if (!adapter) return pass_on(adapter);
    for (const NamedAdapter& other : adapters) {
      if (other.name == adapter->name) {
        return fail(ErrorCode::kInvalidArgument,
                    "the name \"{}\" is given twice, to {} and {}; names must differ", other.name,
                    other.folder.string(), adapter->folder.string());
      }
    }
    std::error_code error;
    if (!std::filesystem::is_directory(adapter->folder, error)) {
      return fail(ErrorCode::kNotFound, "{}: no such folder, named by \"{}\"",
                  adapter->folder.string(), text);
    }
    adapters.push_back(std::move(*adapter));
  }
  return adapters;
}

}  // namespace braid::apps

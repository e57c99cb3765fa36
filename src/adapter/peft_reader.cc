#include "adapter/peft_reader.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "adapter/adapter_file.h"
#include "adapter/factor_store.h"
#include "adapter/lora_config.h"
#include "adapter/lora_plan.h"
#include "base/check.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_header.h"

namespace braid {
namespace {

std::string matrix_name(int32_t matrix) {
  constexpr std::array<const char*, 13> kNames = {"q_proj",
                                                  "k_proj",
                                                  "v_proj",
                                                  "o_proj",
                                                  "router",
                                                  "mlp.gate_proj",
                                                  "mlp.up_proj",
                                                  "mlp.down_proj",
                                                  "experts.gate_proj",
                                                  "experts.up_proj",
                                                  "experts.down_proj",
                                                  "lm_head",
                                                  "embed_tokens"};
  return kNames.at(static_cast<size_t>(matrix));
}

// "q_proj x48 (rank 16)", in the order of matrices.
std::vector<std::string> describe_targets(const std::map<LoraSite, PlannedPair>& pairs) {
  struct Target {
    int64_t count = 0;
    std::set<int32_t> ranks;
  };
  std::map<int32_t, Target> targets;
  for (const auto& [site, pair] : pairs) {
    ++targets[site.matrix].count;
    targets[site.matrix].ranks.insert(pair.rank);
  }
  std::vector<std::string> lines;
  for (const auto& [matrix, target] : targets) {
    const int32_t low = *target.ranks.begin(), high = *target.ranks.rbegin();
    lines.push_back(
        fmt::format("{} x{} (rank {})", matrix_name(matrix), target.count,
                    low == high ? fmt::to_string(low) : fmt::format("{} to {}", low, high)));
  }
  return lines;
}

// Every field that decides what the adapter computes, in the order of sites.
AdapterHash content_hash(const std::map<LoraSite, PlannedPair>& pairs, const FactorStore& store) {
  std::vector<uint64_t> words;
  for (const auto& [site, pair] : pairs) {
    const AdapterHash &a = store.factor(pair.a).hash, &b = store.factor(pair.b).hash;
    for (const int32_t value :
         {site.layer, site.matrix, site.expert, pair.rank, std::bit_cast<int32_t>(pair.scaling)}) {
      words.push_back(static_cast<uint32_t>(value));
    }
    for (const uint64_t word : {a.high, a.low, b.high, b.low}) words.push_back(word);
  }
  const XXH128_hash_t h = XXH3_128bits(words.data(), words.size() * sizeof(uint64_t));
  return {h.high64, h.low64};
}

LoraPair to_pair(const PlannedPair& planned, const FactorStore& store) {
  return {.a = store.factor(planned.a).data,
          .b_t = store.factor(planned.b).data,
          .rank = planned.rank,
          .scaling = planned.scaling};
}

void place(const LoraSite& site, const PlannedPair& planned, const FactorStore& store,
           int32_t num_experts, Adapter& adapter) {
  const LoraPair pair = to_pair(planned, store);
  if (site.matrix == static_cast<int32_t>(LoraMatrix::kLmHead)) {
    adapter.lm_head = pair;
    return;
  }
  if (site.matrix == static_cast<int32_t>(LoraMatrix::kEmbedding)) {
    adapter.embedding = {.a_t = pair.a, .b = pair.b_t, .rank = pair.rank, .scaling = pair.scaling};
    return;
  }
  LayerLora& layer = adapter.layers[static_cast<size_t>(site.layer)];
  if (site.matrix < kNumLoraTargets) {
    layer.linear[static_cast<size_t>(site.matrix)] = pair;
    return;
  }
  if (layer.experts.empty()) layer.experts.resize(static_cast<size_t>(num_experts));
  ExpertLora& expert = layer.experts[static_cast<size_t>(site.expert)];
  switch (static_cast<LoraMatrix>(site.matrix)) {
    case LoraMatrix::kExpertGate:
      expert.gate = pair;
      return;
    case LoraMatrix::kExpertUp:
      expert.up = pair;
      return;
    case LoraMatrix::kExpertDown:
      expert.down = pair;
      return;
    case LoraMatrix::kLmHead:
    case LoraMatrix::kEmbedding:
      break;  // placed above
  }
  BRAID_UNREACHABLE(site.matrix);
}

void warn_of_zero_deltas(const std::map<LoraSite, PlannedPair>& pairs, const FactorStore& store,
                         std::vector<std::string>& warnings) {
  size_t num_zero = 0;
  const std::string* example = nullptr;
  for (const auto& [site, pair] : pairs) {
    if (pair.scaling != 0 && !store.factor(pair.a).all_zero && !store.factor(pair.b).all_zero) {
      continue;
    }
    if (num_zero++ == 0) example = pair.tensor;
  }
  if (num_zero == pairs.size()) {
    warnings.push_back(
        "every delta is zero: the adapter changes nothing (lora_B starts as zeros; was it trained "
        "and saved?)");
  } else if (num_zero > 0) {
    warnings.push_back(
        fmt::format("{} of {} adapted matrices have an all-zero delta, for example {}", num_zero,
                    pairs.size(), *example));
  }
}

using Tensors = std::map<std::string, TensorView>;

void describe(const LoraPlan& plan, const FactorStore& store, const Tensors& tensors,
              AdapterReport& report) {
  report.layout = "no expert adapted";
  if (!plan.layouts().empty()) {
    report.layout.clear();
    for (const std::string& layout : plan.layouts()) {
      report.layout += (report.layout.empty() ? "" : "; ") + layout;
    }
  }
  report.layout_inferred = std::ranges::any_of(plan.layouts(), [](const std::string& layout) {
    return layout.starts_with(kInferredLayout);
  });
  report.evidence = plan.evidence();
  if (plan.layouts().contains("per-expert 2-D")) {
    report.evidence.push_back("keys name each expert, so nothing is ambiguous");
  }
  if (plan.layouts().contains("shared-outer by shape")) {
    report.evidence.push_back("a leading dimension of 1 is shared by all experts");
  }
  std::ranges::copy(plan.warnings(), std::back_inserter(report.warnings));
  warn_of_zero_deltas(plan.pairs(), store, report.warnings);
  report.targets = describe_targets(plan.pairs());
  report.num_tensors = static_cast<int64_t>(tensors.size());
  report.num_parameters = plan.num_parameters();
  for (const auto& [name, view] : tensors) report.bytes_in_file += view.bytes.size();
  report.bytes_resident = store.bytes();
  report.num_factors = 2 * static_cast<int32_t>(plan.pairs().size());
  report.num_distinct_factors = store.num_distinct();
  report.min_rank = plan.pairs().begin()->second.rank;
  for (const auto& [site, pair] : plan.pairs()) {
    report.min_rank = std::min(report.min_rank, pair.rank);
    report.max_rank = std::max(report.max_rank, pair.rank);
  }
}

// The tensors must outlive the call alone.
Result<AdapterAndReport> build(const LoraConfig& config, const Tensors& tensors,
                               const ModelConfig& model, const AdapterReadOptions& options) {
  FactorStore store;
  LoraPlan plan(model, config, options);
  if (auto ok = plan.build(tensors, store); !ok) return pass_on(ok);
  if (auto ok = store.convert(); !ok) return pass_on(ok);

  AdapterAndReport out;
  out.report.warnings = config.warnings;
  const std::string trained_on = base_model_name(config.base_model_name_or_path);
  const std::string served = base_model_name(options.base_model_name);
  if (!trained_on.empty() && !served.empty() && !is_same_base_model(trained_on, served)) {
    out.report.warnings.push_back(fmt::format(
        "base_model_name_or_path is \"{}\", this base model is \"{}\"", trained_on, served));
  }
  describe(plan, store, tensors, out.report);

  auto adapter = std::make_shared<Adapter>();
  adapter->name = options.name;
  adapter->hash = content_hash(plan.pairs(), store);
  adapter->layers.resize(static_cast<size_t>(model.num_hidden_layers));
  for (const auto& [site, pair] : plan.pairs()) {
    place(site, pair, store, model.num_experts, *adapter);
  }
  adapter->max_rank = out.report.max_rank;
  adapter->bytes = store.bytes();
  adapter->storage = {store.storage()};
  out.adapter = std::move(adapter);
  return out;
}

// Whether the files of a folder are still those they were: size and time of each.
using FolderStamp = std::map<std::string, std::pair<uintmax_t, std::filesystem::file_time_type>>;

FolderStamp stamp_of(const std::filesystem::path& folder) {
  FolderStamp stamp;
  std::error_code ignored;  // reading says what is wrong with the folder
  std::filesystem::directory_iterator entry(folder, ignored);
  for (; entry != std::filesystem::directory_iterator(); entry.increment(ignored)) {
    const std::string file = entry->path().filename().string();
    if (!file.starts_with("adapter_")) continue;
    const auto size = entry->file_size(ignored);
    stamp[file] = {size, entry->last_write_time(ignored)};
  }
  return stamp;
}

// A stamp of files that have been left alone for longer than the grain of file times (a tick of the
// kernel, 1 to 10 ms), so that any change from now on shows.
Result<FolderStamp> settled_stamp_of(const std::filesystem::path& folder) {
  using std::chrono_literals::operator""ms;
  constexpr auto kGrain = 20ms;
  constexpr int kTries = 50;
  for (int i = 0; i < kTries; ++i) {
    FolderStamp stamp = stamp_of(folder);
    const auto now = std::filesystem::file_time_type::clock::now();
    const bool is_young = std::ranges::any_of(stamp, [&](const auto& file) {
      const auto time = file.second.second;
      return now - kGrain < time && time < now + kGrain;  // a clock that is far off tells nothing
    });
    if (!is_young) return stamp;
    std::this_thread::sleep_for(kGrain);
  }
  return fail(ErrorCode::kIo, "{}: is being written; try again when it is complete",
              folder.string());
}

Result<AdapterAndReport> read(const std::filesystem::path& folder, const ModelConfig& model,
                              const AdapterReadOptions& options) {
  const FileAccess access = {.changes = true, .within = options.within};
  const auto before = settled_stamp_of(folder);
  if (!before) return tl::unexpected<Error>(before.error());
  auto config = read_lora_config(folder, access);
  if (!config) return pass_on(config);
  auto tensors = open_adapter_tensors(folder, access);
  if (!tensors) return pass_on(tensors);
  // The config of one adapter with the tensors of the next would pass for an adapter.
  if (stamp_of(folder) != *before) {
    return fail(ErrorCode::kIo, "{}: changed while it was read; try again when it is complete",
                folder.string());
  }
  auto out = build(*config, tensors->tensors(), model, options);
  if (!out) return pass_on(out, folder.string());
  return out;
}

Result<AdapterAndReport> read(const AdapterBytes& bytes, const ModelConfig& model,
                              const AdapterReadOptions& options) {
  auto config = parse_lora_config(bytes.config_json);
  if (!config) return pass_on(config, "adapter_config.json");
  auto contents = parse_safetensors(
      std::as_bytes(std::span(bytes.safetensors.data(), bytes.safetensors.size())));
  if (!contents) return pass_on(contents, "adapter_model.safetensors");
  return build(*config, contents->tensors, model, options);
}

// Errors name the adapter.
template <class Source>
Result<AdapterAndReport> read_named(const Source& source, const ModelConfig& config,
                                    const AdapterReadOptions& options) {
  auto out = read(source, config, options);
  if (!out && !options.name.empty())
    return pass_on(out, fmt::format("adapter \"{}\"", options.name));
  return out;
}

}  // namespace

std::string base_model_name(std::string name) {
  while (name.ends_with('/')) name.pop_back();
  if (const size_t at = name.rfind("models--");
      at != name.npos && (at == 0 || name[at - 1] == '/')) {
    name.resize(std::min(name.find('/', at), name.size()));
    return name.substr(name.rfind("--") + 2);
  }
  return name.substr(name.rfind('/') + 1);
}

bool is_same_base_model(const std::string& a, const std::string& b) {
  const auto plain = [](std::string name) {
    std::ranges::transform(name, name.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
    for (const std::string_view format : {"-fp8", "-nvfp4", "-fp4", "-bf16"}) {
      if (name.ends_with(format)) return name.substr(0, name.size() - format.size());
    }
    return name;
  };
  return plain(a) == plain(b);
}

Result<AdapterAndReport> read_adapter(const std::filesystem::path& folder,
                                      const ModelConfig& config,
                                      const AdapterReadOptions& options) {
  return read_named(folder, config, options);
}

Result<AdapterAndReport> read_adapter(const AdapterBytes& bytes, const ModelConfig& config,
                                      const AdapterReadOptions& options) {
  return read_named(bytes, config, options);
}

}  // namespace braid

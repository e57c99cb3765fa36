#include "checkpoint/inspect.h"

#include <map>
#include <memory>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "checkpoint/weight_source.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

bool has_weight_files(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "model.safetensors", ignored) ||
         fs::exists(folder / "model.safetensors.index.json", ignored);
}

WeightFormat announced_format(const ModelConfig& config, WeightRole role) {
  if (!is_usually_quantised(role)) return WeightFormat::kBf16;
  switch (config.quant_method) {
    case QuantMethod::kNone:
      return WeightFormat::kBf16;
    case QuantMethod::kFp8Block128:
      return WeightFormat::kFp8Block128;
    case QuantMethod::kModelOptNvfp4:
    case QuantMethod::kCompressedTensorsNvfp4:
      return WeightFormat::kNvfp4;
  }
  BRAID_UNREACHABLE(static_cast<int>(config.quant_method));
}

// Of each expert's parameters a token uses top_k out of num_experts; of the embedding one row. A
// tied embedding is read whole, as the head.
int64_t active_parameters(const ModelConfig& config, const WeightSpec& spec) {
  const int64_t cols = spec.cols > 0 ? spec.cols : 1;
  if (spec.role == WeightRole::kEmbedding && !config.tie_word_embeddings) return cols;
  if (spec.expert >= config.top_k) return 0;
  return spec.rows * cols;
}

}  // namespace

std::string_view name(QuantMethod method) {
  switch (method) {
    case QuantMethod::kNone:
      return "none";
    case QuantMethod::kFp8Block128:
      return "fp8 128x128";
    case QuantMethod::kModelOptNvfp4:
      return "modelopt nvfp4";
    case QuantMethod::kCompressedTensorsNvfp4:
      return "compressed-tensors nvfp4";
  }
  BRAID_UNREACHABLE(static_cast<int>(method));
}

Result<CheckpointSummary> inspect_checkpoint(const fs::path& folder) {
  auto config = read_model_config(folder);
  if (!config) return pass_on(config);
  CheckpointSummary summary{.config = std::move(*config), .has_weights = has_weight_files(folder)};
  std::unique_ptr<WeightSource> source;
  if (summary.has_weights) {
    auto opened = open_checkpoint(folder, summary.config);
    if (!opened) return pass_on(opened);
    source = std::move(*opened);
  }
  std::map<std::pair<WeightRole, std::string>, RoleSummary> roles;
  for (const WeightSpec& spec : weight_table(summary.config)) {
    const int64_t parameters = int64_t{spec.rows} * (spec.cols > 0 ? spec.cols : 1);
    std::string format = "bf16";
    // Norms are a few thousand parameters; they count as BF16, which releases store them in.
    auto bytes = static_cast<size_t>(parameters) * 2;
    if (spec.cols > 0) {
      WeightFormat stored = announced_format(summary.config, spec.role);
      if (source) {
        auto weight = source->matrix(spec);
        if (!weight) return pass_on(weight);
        stored = weight->matrix.format;
      }
      format = std::string(name(stored));
      bytes = weight_bytes(stored, spec.rows, spec.cols);
    } else if (source) {
      if (auto values = source->vector(spec); !values) return pass_on(values);
    }
    RoleSummary& role = roles[{spec.role, format}];
    role.role = spec.role;
    role.format = format;
    role.count += 1;
    role.parameters += parameters;
    role.bytes += static_cast<int64_t>(bytes);
    summary.parameters += parameters;
    summary.active_parameters += active_parameters(summary.config, spec);
    summary.bytes += static_cast<int64_t>(bytes);
  }
  for (auto& [key, role] : roles) summary.roles.push_back(std::move(role));
  return summary;
}

Json to_json(const CheckpointSummary& summary) {
  const ModelConfig& c = summary.config;
  Json roles = Json::array();
  for (const RoleSummary& role : summary.roles) {
    roles.push_back({{"role", name(role.role)},
                     {"format", role.format},
                     {"count", role.count},
                     {"parameters", role.parameters},
                     {"bytes", role.bytes}});
  }
  return {{"architecture", name(c.architecture)},
          {"quantization", name(c.quant_method)},
          {"has_weights", summary.has_weights},
          {"hidden_size", c.hidden_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_key_value_heads},
          {"head_dim", c.head_dim},
          {"num_experts", c.num_experts},
          {"num_experts_per_tok", c.top_k},
          {"moe_intermediate_size", c.moe_intermediate_size},
          {"vocab_size", c.vocab_size},
          {"max_position_embeddings", c.max_position_embeddings},
          {"tie_word_embeddings", c.tie_word_embeddings},
          {"parameters", summary.parameters},
          {"active_parameters", summary.active_parameters},
          {"bytes", summary.bytes},
          {"roles", roles}};
}

}  // namespace braid

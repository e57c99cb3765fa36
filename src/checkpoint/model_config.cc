#include "checkpoint/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/safetensors_header.h"

namespace braid {
namespace {

namespace fs = std::filesystem;

// Far above any released model; keeps every product of two sizes inside 64 bits and the weight
// table of a hostile config small.
constexpr int64_t kMaxSize = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxExpertsOfModel = int64_t{1} << 17;

std::string shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 60) + "..." : text;
}

// Typed access to config.json. The first field that does not fit is kept as the error, later reads
// return their fallback, so that a parser reads all fields in a row and asks once.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  const Status& status() const { return status_; }

  // Absent and null are the same to Hugging Face.
  bool has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }
  const Json& operator[](const char* key) const { return json_[key]; }

  int32_t integer(const char* key, int64_t min, int64_t max) {
    if (!has(key)) {
      refuse(ErrorCode::kCorrupt, fmt::format("{} is missing", key));
      return static_cast<int32_t>(min);
    }
    const Json& value = json_[key];
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() &&
                        value.get<uint64_t>() > static_cast<uint64_t>(kMaxSize) * kMaxSize) &&
                      value.get<int64_t>() >= min && value.get<int64_t>() <= max;
    if (!fits) {
      refuse(ErrorCode::kCorrupt, fmt::format("{} is {}, an integer from {} to {} is expected", key,
                                              shown(value), min, max));
      return static_cast<int32_t>(min);
    }
    return value.get<int32_t>();
  }
  int32_t integer_or(const char* key, int64_t min, int64_t max, int32_t fallback) {
    return has(key) ? integer(key, min, max) : fallback;
  }

  bool boolean_or(const char* key, bool fallback) {
    if (!has(key)) return fallback;
    if (json_[key].is_boolean()) return json_[key].get<bool>();
    refuse(ErrorCode::kCorrupt,
           fmt::format("{} is {}, true or false is expected", key, shown(json_[key])));
    return fallback;
  }

  // Positive and finite.
  double positive_or(const char* key, double fallback) {
    if (!has(key)) return fallback;
    const Json& value = json_[key];
    if (value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() > 0) {
      return value.get<double>();
    }
    refuse(ErrorCode::kCorrupt,
           fmt::format("{} is {}, a positive number is expected", key, shown(value)));
    return fallback;
  }

  void refuse(ErrorCode code, std::string message) {
    if (status_) status_ = tl::unexpected<Error>(Error{code, std::move(message)});
  }
  void unsupported(std::string message) { refuse(ErrorCode::kUnsupported, std::move(message)); }

 private:
  const Json& json_;
  Status status_;
};

Result<Architecture> parse_architecture(const Json& config) {
  std::string found;
  if (config.contains("architectures") && config["architectures"].is_array() &&
      config["architectures"].size() == 1 && config["architectures"][0].is_string()) {
    found = config["architectures"][0].get<std::string>();
  } else if (config.contains("architectures") && !config["architectures"].is_null()) {
    return fail(ErrorCode::kCorrupt, "architectures is {}, a list of one name is expected",
                shown(config["architectures"]));
  } else if (config.contains("model_type") && config["model_type"].is_string()) {
    const auto& type = config["model_type"].get_ref<const std::string&>();
    if (type == "mixtral") return Architecture::kMixtral;
    if (type == "qwen3_moe") return Architecture::kQwen3Moe;
    return fail(ErrorCode::kUnsupported,
                "model_type {} is not known to this build, it knows mixtral and qwen3_moe",
                quote_name(type));
  } else {
    return fail(ErrorCode::kCorrupt, "neither architectures nor model_type is there");
  }
  for (const auto known : {Architecture::kMixtral, Architecture::kQwen3Moe}) {
    if (found == name(known)) return known;
  }
  return fail(ErrorCode::kUnsupported,
              "architecture {} is not known to this build, it knows {} and {}", quote_name(found),
              name(Architecture::kMixtral), name(Architecture::kQwen3Moe));
}

// One place of the rope settings: `rope_scaling` (transformers 4) or `rope_parameters` (5).
void parse_rope_object(Fields& fields, const char* key, std::optional<double>& theta) {
  if (!fields.has(key)) return;
  const Json& rope = fields[key];
  if (!rope.is_object()) {
    fields.refuse(ErrorCode::kCorrupt,
                  fmt::format("{} is {}, an object is expected", key, shown(rope)));
    return;
  }
  for (const char* kind : {"rope_type", "type"}) {
    if (!rope.contains(kind) || rope[kind] == "default") continue;
    fields.unsupported(fmt::format("{}.{} {} is not known to this build, it knows \"default\"", key,
                                   kind, shown(rope[kind])));
  }
  for (const auto& [name, value] : rope.items()) {
    if (name == "rope_type" || name == "type") continue;
    if (name == "rope_theta") {
      if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>())) {
        fields.refuse(
            ErrorCode::kCorrupt,
            fmt::format("{}.rope_theta is {}, a positive number is expected", key, shown(value)));
        return;
      }
      theta = value.get<double>();
    } else if (name == "partial_rotary_factor") {
      if (value != 1 && value != 1.0) {
        fields.unsupported(
            fmt::format("{}.partial_rotary_factor {} is not known to this build, it knows 1", key,
                        shown(value)));
      }
    } else {
      fields.unsupported(fmt::format("{} has a setting {}, which this build does not know", key,
                                     quote_name(name)));
    }
  }
}

void parse_rope(Fields& fields, double fallback, ModelConfig& out) {
  std::optional<double> theta;
  parse_rope_object(fields, "rope_scaling", theta);
  parse_rope_object(fields, "rope_parameters", theta);
  if (fields.has("rope_theta")) {
    const double direct = fields.positive_or("rope_theta", fallback);
    if (theta && *theta != direct) {
      fields.refuse(ErrorCode::kCorrupt,
                    fmt::format("rope_theta is {} and rope_parameters.rope_theta is {}, they must "
                                "agree",
                                direct, *theta));
    }
    theta = direct;
  }
  out.rope_theta = theta.value_or(fallback);
  if (fields.has("partial_rotary_factor") &&
      fields.positive_or("partial_rotary_factor", 1.0) != 1.0) {
    fields.unsupported(
        fmt::format("partial_rotary_factor {} is not known to this build, it knows 1",
                    shown(fields["partial_rotary_factor"])));
  }
}

void parse_attention(Fields& fields, ModelConfig& out) {
  out.num_attention_heads = fields.integer("num_attention_heads", 1, 4096);
  out.num_key_value_heads =
      fields.integer_or("num_key_value_heads", 1, 4096, out.num_attention_heads);
  if (out.num_attention_heads % out.num_key_value_heads != 0) {
    fields.refuse(
        ErrorCode::kCorrupt,
        fmt::format("num_attention_heads is {}, a multiple of num_key_value_heads = {} is "
                    "expected",
                    out.num_attention_heads, out.num_key_value_heads));
  }
  if (fields.has("head_dim")) {
    out.head_dim = fields.integer("head_dim", 2, 4096);
  } else {
    out.head_dim = out.hidden_size / out.num_attention_heads;
    if (out.hidden_size % out.num_attention_heads != 0) {
      fields.refuse(ErrorCode::kCorrupt,
                    fmt::format("head_dim is missing and hidden_size = {} is not a multiple of "
                                "num_attention_heads = {}",
                                out.hidden_size, out.num_attention_heads));
    }
  }
  if (out.head_dim < 2 || out.head_dim % 2 != 0) {
    fields.refuse(ErrorCode::kCorrupt,
                  fmt::format("head_dim is {}, rotary embedding needs an even one", out.head_dim));
  }
  if (fields.boolean_or("attention_bias", false)) {
    fields.unsupported("attention_bias true is not known to this build, it knows false");
  }
  if (fields.has("layer_types")) {
    for (const Json& type : fields["layer_types"]) {
      if (type != "full_attention") {
        fields.unsupported(
            fmt::format("layer_types holds {}, this build knows \"full_attention\"", shown(type)));
      }
    }
  }
  // Qwen has its own switch; without it a window in the file is not used.
  const bool windowed = out.architecture == Architecture::kQwen3Moe
                            ? fields.boolean_or("use_sliding_window", false)
                            : true;
  if (windowed && fields.has("sliding_window")) {
    const int32_t window = fields.integer("sliding_window", 1, std::numeric_limits<int32_t>::max());
    if (window < out.max_position_embeddings) {
      fields.unsupported(
          fmt::format("sliding_window {} is not known to this build, it knows windows "
                      "of at least max_position_embeddings = {}",
                      window, out.max_position_embeddings));
    }
  }
}

void parse_common(Fields& fields, double default_theta, double default_eps, ModelConfig& out) {
  out.hidden_size = fields.integer("hidden_size", 1, kMaxSize);
  out.num_hidden_layers = fields.integer("num_hidden_layers", 1, kMaxLayers);
  out.vocab_size = fields.integer("vocab_size", 1, int64_t{1} << 24);
  out.max_position_embeddings =
      fields.integer("max_position_embeddings", 1, std::numeric_limits<int32_t>::max());
  parse_attention(fields, out);
  parse_rope(fields, default_theta, out);
  out.rms_norm_eps = static_cast<float>(fields.positive_or("rms_norm_eps", default_eps));
  out.tie_word_embeddings = fields.boolean_or("tie_word_embeddings", false);
  if (fields.has("hidden_act") && fields["hidden_act"] != "silu") {
    fields.unsupported(fmt::format("hidden_act {} is not known to this build, it knows \"silu\"",
                                   shown(fields["hidden_act"])));
  }
}

void parse_mixtral(Fields& fields, ModelConfig& out) {
  parse_common(fields, 1e6, 1e-5, out);
  out.moe_intermediate_size = fields.integer("intermediate_size", 1, kMaxSize);
  out.num_experts = fields.integer("num_local_experts", 1, kMaxExpertsOfModel);
  out.top_k = fields.integer("num_experts_per_tok", 1, out.num_experts);
  out.norm_topk_prob = true;
  out.is_moe_layer.assign(static_cast<size_t>(out.num_hidden_layers), true);
}

void parse_qwen3_moe(Fields& fields, ModelConfig& out) {
  parse_common(fields, 1e4, 1e-6, out);
  out.qk_norm = true;
  out.moe_intermediate_size = fields.integer("moe_intermediate_size", 1, kMaxSize);
  const char* experts_key = fields.has("num_experts") ? "num_experts" : "num_local_experts";
  out.num_experts = fields.integer(experts_key, 1, kMaxExpertsOfModel);
  out.top_k = fields.integer("num_experts_per_tok", 1, out.num_experts);
  out.norm_topk_prob = fields.boolean_or("norm_topk_prob", false);

  // A layer is MoE when the step selects it and it is not listed as dense.
  const int32_t step = fields.integer_or("decoder_sparse_step", 1, kMaxLayers, 1);
  out.is_moe_layer.assign(static_cast<size_t>(out.num_hidden_layers), false);
  for (size_t layer = 0; layer < out.is_moe_layer.size(); ++layer) {
    out.is_moe_layer[layer] = (layer + 1) % static_cast<size_t>(step) == 0;
  }
  if (fields.has("mlp_only_layers")) {
    const Json& dense = fields["mlp_only_layers"];
    for (const Json& layer : dense) {
      const bool fits = dense.is_array() && layer.is_number_integer() &&
                        layer.get<int64_t>() >= 0 && layer.get<int64_t>() < out.num_hidden_layers;
      if (!fits) {
        fields.refuse(ErrorCode::kCorrupt,
                      fmt::format("mlp_only_layers holds {}, layers from 0 to {} are expected",
                                  shown(layer), out.num_hidden_layers - 1));
        return;
      }
      out.is_moe_layer[layer.get<size_t>()] = false;
    }
  }
  if (std::find(out.is_moe_layer.begin(), out.is_moe_layer.end(), false) !=
      out.is_moe_layer.end()) {
    out.intermediate_size = fields.integer("intermediate_size", 1, kMaxSize);
  }
}

}  // namespace

std::string_view name(Architecture architecture) {
  switch (architecture) {
    case Architecture::kMixtral:
      return "MixtralForCausalLM";
    case Architecture::kQwen3Moe:
      return "Qwen3MoeForCausalLM";
  }
  BRAID_UNREACHABLE(static_cast<int>(architecture));
}

Result<ModelConfig> parse_model_config(const Json& config, const Json& hf_quant_config) {
  if (!config.is_object()) return fail(ErrorCode::kCorrupt, "not a JSON object");
  auto architecture = parse_architecture(config);
  if (!architecture) return pass_on(architecture);
  ModelConfig out;
  out.architecture = *architecture;
  Fields fields(config);
  switch (*architecture) {
    case Architecture::kMixtral:
      parse_mixtral(fields, out);
      break;
    case Architecture::kQwen3Moe:
      parse_qwen3_moe(fields, out);
      break;
  }
  if (!fields.status()) return tl::unexpected<Error>(fields.status().error());
  const int64_t experts = int64_t{out.num_hidden_layers} * out.num_experts;
  if (experts > kMaxExpertsOfModel) {
    return fail(ErrorCode::kCorrupt,
                "{} layers of {} experts are {} experts, at most {} are accepted",
                out.num_hidden_layers, out.num_experts, experts, kMaxExpertsOfModel);
  }
  auto method = parse_quant_method(
      config.contains("quantization_config") ? config["quantization_config"] : Json(),
      hf_quant_config);
  if (!method) return pass_on(method);
  out.quant_method = *method;
  return out;
}

Result<ModelConfig> read_model_config(const fs::path& folder) {
  auto config = read_json_file(folder / "config.json");
  if (!config) return pass_on(config);
  Json hf_quant_config;
  std::error_code ignored;
  if (const fs::path path = folder / "hf_quant_config.json"; fs::exists(path, ignored)) {
    auto read = read_json_file(path);
    if (!read) return pass_on(read);
    hf_quant_config = std::move(*read);
  }
  auto out = parse_model_config(*config, hf_quant_config);
  if (!out) return pass_on(out, (folder / "config.json").string());
  return out;
}

}  // namespace braid

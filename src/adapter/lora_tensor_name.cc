#include "adapter/lora_tensor_name.h"

#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

namespace braid {
namespace {

using Module = std::optional<LoraModule>;

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

// "12.rest" -> 12, leaving "rest". Leading zeros would give one module two names.
std::optional<int32_t> take_index(std::string_view& text) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const auto length = static_cast<size_t>(end - text.data());
  if (error != std::errc() || value < 0 || (length > 1 && text[0] == '0')) return {};
  if (length == text.size() || text[length] != '.') return {};
  text.remove_prefix(length + 1);
  return value;
}

Module linear_module(std::string_view name) {
  if (name == "self_attn.q_proj") return LoraModule::kQProj;
  if (name == "self_attn.k_proj") return LoraModule::kKProj;
  if (name == "self_attn.v_proj") return LoraModule::kVProj;
  if (name == "self_attn.o_proj") return LoraModule::kOProj;
  if (name == "mlp.gate" || name == "block_sparse_moe.gate") return LoraModule::kRouter;
  if (name == "mlp.gate_proj") return LoraModule::kGateProj;
  if (name == "mlp.up_proj") return LoraModule::kUpProj;
  if (name == "mlp.down_proj") return LoraModule::kDownProj;
  if (name == "mlp.gate_up_proj") return LoraModule::kGateUpProj;
  return {};
}

Module expert_module(std::string_view name) {
  if (name == "gate_proj" || name == "w1") return LoraModule::kExpertGateProj;
  if (name == "up_proj" || name == "w3") return LoraModule::kExpertUpProj;
  if (name == "down_proj" || name == "w2") return LoraModule::kExpertDownProj;
  if (name == "gate_up_proj" || name == "w13") return LoraModule::kExpertGateUpProj;
  return {};
}

// What stands before lora_A and the like, and the part; false for a name that is no factor.
bool take_part(std::string_view& rest, LoraTensorPart& part, bool& embedding) {
  constexpr std::pair<std::string_view, LoraTensorPart> kParts[] = {
      {".lora_A", LoraTensorPart::kA}, {".lora_B", LoraTensorPart::kB}};
  constexpr std::pair<std::string_view, LoraTensorPart> kEmbeddingParts[] = {
      {".lora_embedding_A", LoraTensorPart::kA}, {".lora_embedding_B", LoraTensorPart::kB}};
  std::string_view name = rest;
  const bool weight = take_suffix(name, ".weight");
  take_suffix(name, ".default");
  for (const auto& [suffix, which] : kEmbeddingParts) {
    if (!take_suffix(name, suffix)) continue;
    rest = name, part = which, embedding = true;
    return true;
  }
  for (const auto& [suffix, which] : kParts) {
    if (!weight || !take_suffix(name, suffix)) continue;
    rest = name, part = which, embedding = false;
    return true;
  }
  return false;
}

tl::unexpected<Error> refuse_other(const std::string& tensor) {
  if (tensor.find("lora_magnitude_vector") != tensor.npos) {
    return fail(ErrorCode::kUnsupported,
                "tensor {} is a DoRA magnitude, which is not supported; train with use_dora=false",
                tensor);
  }
  if (tensor.ends_with(".bias")) {
    return fail(ErrorCode::kUnsupported,
                "tensor {} is a trained bias, which is not supported; train with bias=\"none\"",
                tensor);
  }
  if (tensor.ends_with(".weight")) {
    return fail(ErrorCode::kUnsupported,
                "tensor {} is a whole saved module, not a LoRA factor; train without "
                "modules_to_save and save with save_embedding_layers=False",
                tensor);
  }
  return fail(ErrorCode::kUnsupported,
              "tensor {} is not of a known kind, need names that end in lora_A.weight, "
              "lora_B.weight, lora_embedding_A or lora_embedding_B",
              tensor);
}

tl::unexpected<Error> refuse_module(const std::string& tensor) {
  return fail(ErrorCode::kUnsupported,
              "tensor {} belongs to a module that this build cannot adapt; it knows "
              "self_attn.{{q,k,v,o}}_proj, the router, dense and expert gate/up/down projections, "
              "lm_head and embed_tokens",
              tensor);
}

// Fills module, layer, expert and nesting from "layers.0.mlp.experts.3.w1".
bool parse_module(std::string_view rest, LoraTensorName& name) {
  if (rest == "lm_head" || rest == "unembed_tokens") {
    name.module = LoraModule::kLmHead;
    return true;
  }
  if (rest == "embed_tokens") {
    name.module = LoraModule::kEmbedding;
    return true;
  }
  if (!take_prefix(rest, "layers.")) return false;
  const auto layer = take_index(rest);
  if (!layer) return false;
  name.layer = *layer;
  if (const Module linear = linear_module(rest)) {
    name.module = *linear;
    return true;
  }
  if (!take_prefix(rest, "mlp.experts") && !take_prefix(rest, "block_sparse_moe.experts")) {
    return false;
  }
  while (take_suffix(rest, ".base_layer")) ++name.nesting;
  if (rest.empty()) {
    name.module = LoraModule::kExpertParameter;
    return true;
  }
  if (name.nesting > 0 || !take_prefix(rest, ".")) return false;
  if (const auto expert = take_index(rest)) name.expert = *expert;
  const Module module = expert_module(rest);
  if (module) name.module = *module;
  return module.has_value();
}

}  // namespace

Result<LoraTensorName> parse_lora_tensor_name(const std::string& tensor) {
  LoraTensorName name;
  std::string_view rest = tensor;
  bool embedding = false;
  const bool is_factor = take_part(rest, name.part, embedding);
  if (!is_factor) {
    if (!take_suffix(rest, ".base_layer.weight")) return refuse_other(tensor);
    name.part = LoraTensorPart::kBaseCopy;
  }
  while (take_prefix(rest, "base_model.model.")) {
  }
  name.trained_name = rest;
  while (take_prefix(rest, "model.") || take_prefix(rest, "language_model.")) {
  }
  name.plain_name = rest;
  if (!parse_module(rest, name)) return refuse_module(tensor);
  const bool on_embedding = name.module == LoraModule::kEmbedding;
  if (!is_factor) {
    if (!on_embedding && name.module != LoraModule::kLmHead) return refuse_other(tensor);
    return name;
  }
  if (embedding != on_embedding) {
    return fail(ErrorCode::kUnsupported, "tensor {} has the wrong kind of factor, need {}", tensor,
                on_embedding ? "lora_embedding_A and lora_embedding_B on embed_tokens"
                             : "lora_A.weight and lora_B.weight on this module");
  }
  return name;
}

}  // namespace braid

#include "checkpoint/tensor_names.h"

#include <utility>

namespace braid {
namespace {

constexpr std::pair<std::string_view, std::string_view> kPrefixes[] = {
    {"model.language_model.", "model."},
    {"language_model.model.", "model."},
    {"language_model.lm_head.", "lm_head."},
    {"language_model.", "model."},
};

constexpr std::pair<std::string_view, std::string_view> kMixtralExperts[] = {
    {"gate_proj.", "w1."}, {"up_proj.", "w3."}, {"down_proj.", "w2."}};

constexpr std::string_view kExperts = ".experts.";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

std::string canonical_tensor_name(Architecture architecture, std::string_view name) {
  std::string out(name);
  for (const auto& [prefix, replacement] : kPrefixes) {
    if (name.starts_with(prefix)) {
      out.replace(0, prefix.size(), replacement);
      break;
    }
  }
  if (architecture != Architecture::kMixtral) return out;
  if (const auto at = out.find(".mlp."); at != out.npos) {
    out.replace(at, std::string_view(".mlp.").size(), ".block_sparse_moe.");
  }
  const auto experts = out.find(kExperts);
  if (experts == out.npos) return out;
  size_t at = experts + kExperts.size();
  const size_t digits = at;
  while (at < out.size() && is_digit(out[at])) ++at;
  if (at == digits || at >= out.size() || out[at] != '.') return out;
  ++at;
  for (const auto& [from, to] : kMixtralExperts) {
    if (std::string_view(out).substr(at).starts_with(from)) {
      out.replace(at, from.size(), to);
      break;
    }
  }
  return out;
}

bool is_skipped_tensor(std::string_view name) {
  if (name.starts_with("mtp.")) return true;
  for (const std::string_view suffix :
       {".rotary_emb.inv_freq", ".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".prob_scale"}) {
    if (name.ends_with(suffix)) return true;
  }
  return false;
}

std::string_view experts_prefix(std::string_view module) {
  const auto at = module.find(kExperts);
  return at == module.npos ? std::string_view() : module.substr(0, at + kExperts.size());
}

}  // namespace braid

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <map>
#include <string>
#include <string_view>

#include "adapter/factor_store.h"
#include "adapter/lora_config.h"
#include "adapter/lora_plan.h"

// The text up to the first NUL byte as an adapter_config.json, the rest as tensors: four bytes each
// for the name and three for the shape. A message, or factors whose elements can all be read.
namespace {

using braid::TensorView;

constexpr std::array<std::string_view, 20> kModules = {"self_attn.q_proj",
                                                       "self_attn.k_proj",
                                                       "self_attn.o_proj",
                                                       "mlp.gate",
                                                       "mlp.gate_proj",
                                                       "mlp.gate_up_proj",
                                                       "mlp.down_proj",
                                                       "mlp.experts.0.w1",
                                                       "mlp.experts.1.up_proj",
                                                       "mlp.experts.2.w2",
                                                       "mlp.experts.1.w13",
                                                       "mlp.experts.w1",
                                                       "mlp.experts.w3",
                                                       "mlp.experts.down_proj",
                                                       "mlp.experts.gate_up_proj",
                                                       "mlp.experts",
                                                       "mlp.experts.base_layer",
                                                       "block_sparse_moe.experts",
                                                       "mlp.experts.99999999",
                                                       "mlp.experts.01.gate_proj"};
constexpr std::array<std::string_view, 8> kPrefixes = {"base_model.model.model.layers.0.",
                                                       "base_model.model.model.layers.1.",
                                                       "layers.0.",
                                                       "model.layers.1.",
                                                       "base_model.model.lm_head",
                                                       "model.embed_tokens",
                                                       "unembed_tokens",
                                                       ""};
constexpr std::array<std::string_view, 8> kParts = {
    ".lora_A.weight",    ".lora_B.weight",    ".lora_A.default.weight", ".lora_B.default.weight",
    ".lora_embedding_A", ".lora_embedding_B", ".base_layer.weight",     ".lora_magnitude_vector"};
constexpr std::array<int64_t, 16> kSizes = {0, 1, 2, 3, 4, 6, 8, 9, 10, 12, 16, 18, 20, 24, 32, 5};
constexpr std::array<braid::Dtype, 4> kDtypes = {braid::Dtype::kBf16, braid::Dtype::kF32,
                                                 braid::Dtype::kF16, braid::Dtype::kI8};

braid::ModelConfig model() {
  braid::ModelConfig config;
  config.architecture = braid::Architecture::kQwen3Moe;
  config.hidden_size = 8;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 3;
  config.num_key_value_heads = 1;
  config.head_dim = 4;
  config.intermediate_size = 10;
  config.moe_intermediate_size = 6;
  config.num_experts = 3;
  config.top_k = 2;
  config.is_moe_layer = {true, false};
  config.vocab_size = 16;
  return config;
}

// Backing bytes of the tensors; the bytes of a tensor are its spec, repeated.
using Tensors = std::map<std::string, TensorView>;

Tensors make_tensors(std::string_view spec, std::deque<std::string>& memory) {
  Tensors tensors;
  for (; spec.size() >= 6 && tensors.size() < 32; spec.remove_prefix(6)) {
    const auto at = [&](size_t i) { return static_cast<uint8_t>(spec[i]); };
    std::string name(kPrefixes[at(0) % kPrefixes.size()]);
    if (name.empty() || name.ends_with('.')) name += kModules[at(1) % kModules.size()];
    name += kParts[at(2) % kParts.size()];
    TensorView view = {.dtype = kDtypes[(at(2) >> 3) % kDtypes.size()]};
    view.shape = {kSizes[at(3) % 16], kSizes[(at(3) >> 4) % 16]};
    if (at(4) % 4 == 0) view.shape.insert(view.shape.begin(), kSizes[(at(4) >> 2) % 16]);
    if (at(4) % 4 == 1) view.shape.pop_back();
    const size_t bytes =
        static_cast<size_t>(braid::num_elements(view.shape)) * braid::size_of(view.dtype);
    std::string& data = memory.emplace_back(bytes, spec[5]);
    view.bytes = std::as_bytes(std::span(data.data(), data.size()));
    tensors[name] = view;
  }
  return tensors;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = std::min(input.find('\0'), size);
  const auto config = braid::parse_lora_config(input.substr(0, nul));
  if (!config) {
    if (config.error().message.empty()) std::abort();
    return 0;
  }
  std::deque<std::string> memory;
  Tensors tensors = make_tensors(input.substr(std::min(nul + 1, size)), memory);
  const braid::ModelConfig base = model();
  const braid::AdapterReadOptions options = {.max_lora_rank = 8};
  braid::FactorStore store;
  braid::LoraPlan plan(base, *config, options);
  auto done = plan.build(tensors, store);
  if (done) done = store.convert();
  if (!done) {
    if (done.error().message.empty()) std::abort();
    return 0;
  }
  unsigned sum = 0;
  for (const auto& [site, pair] : plan.pairs()) {
    if (pair.rank < 1 || pair.rank > 8) std::abort();
    for (const int32_t id : {pair.a, pair.b}) sum += store.factor(id).data[0].bits;
  }
  return sum == 0xffffffffu ? 1 : 0;
}

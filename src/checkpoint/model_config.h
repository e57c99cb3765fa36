#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "quant/weight_matrix.h"

namespace braid {

enum class Architecture { kMixtral, kQwen3Moe };

std::string_view name(Architecture architecture);  // "MixtralForCausalLM", "Qwen3MoeForCausalLM"

// How the checkpoint says its linear weights are stored. The tensors have the last word: a module
// with scale tensors is quantised, one without is not.
enum class QuantMethod { kNone, kFp8Block128, kModelOptNvfp4, kCompressedTensorsNvfp4 };

// The facts of a config.json that decide shapes and arithmetic, under their Hugging Face names.
struct ModelConfig {
  Architecture architecture = Architecture::kMixtral;
  int32_t hidden_size = 0;
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate_size = 0;      // of dense MLP layers; 0 where there are none
  int32_t moe_intermediate_size = 0;  // of one expert
  int32_t num_experts = 0;
  int32_t top_k = 0;  // num_experts_per_tok
  bool norm_topk_prob = true;
  std::vector<bool> is_moe_layer;  // [num_hidden_layers]
  int32_t vocab_size = 0;
  int32_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-6f;
  double rope_theta = 1e4;
  bool tie_word_embeddings = false;
  bool qk_norm = false;  // RMSNorm over head_dim on q and k, before rope
  QuantMethod quant_method = QuantMethod::kNone;

  int32_t q_size() const { return num_attention_heads * head_dim; }
  int32_t kv_size() const { return num_key_value_heads * head_dim; }
};

// Reads config.json and, where there is one, hf_quant_config.json of a folder. Every field that
// changes the arithmetic is either understood or refused by name (rope scaling kinds, attention
// bias, sliding windows shorter than the context, other activations, ...).
//
// Errors  kNotFound  kIo  kCorrupt (a field missing, of the wrong type or out of range)
//         kUnsupported (architecture or feature this build does not know, with what it knows)
Result<ModelConfig> read_model_config(const std::filesystem::path& folder);

// The same from parsed JSON; hf_quant_config may be null.
Result<ModelConfig> parse_model_config(const Json& config, const Json& hf_quant_config);

}  // namespace braid

#pragma once

#include <string>
#include <string_view>

#include "checkpoint/model_config.h"

namespace braid {

// The name under which weight_table() knows a tensor: wrapper prefixes of multi-modal releases are
// taken off (`model.language_model.`, `language_model.model.`, ...), and Mixtral's second set of
// names (`mlp.experts.E.gate_proj`) becomes the first (`block_sparse_moe.experts.E.w1`).
std::string canonical_tensor_name(Architecture architecture, std::string_view name);

// Tensors that checkpoints of these architectures carry and that add nothing to a forward pass:
// rotary buffers, scales of a quantised KV cache, multi-token prediction layers (`mtp.`).
bool is_skipped_tensor(std::string_view canonical_name);

// "model.layers.0.mlp.experts." of "model.layers.0.mlp.experts.3.up_proj"; empty when the module is
// not in an expert.
std::string_view experts_prefix(std::string_view module);

}  // namespace braid

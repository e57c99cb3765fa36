#pragma once

#include <cstddef>
#include <cstdint>

#include "adapter/adapter.h"
#include "checkpoint/model_config.h"
#include "model/layer_weights.h"

namespace braid {

// Distinct experts of a layer that num_tokens tokens touch when each picks top_k of num_experts at
// random: E (1 - (1 - top_k / E)^num_tokens). Between top_k and min(E, num_tokens * top_k).
double expected_experts(const ModelConfig& config, int64_t num_tokens);

// Bytes of weights a decode step of num_tokens base tokens reads: every matrix with its scales and
// every norm once, of the experts those expected_experts() says, of the embedding a row a token.
size_t step_bytes(const ModelConfig& config, const DecoderWeights& weights, int64_t num_tokens);

// Bytes of an adapter's factors that a decode step reads when num_tokens of its tokens use it: its
// dense factors once, the factors of expected_experts() experts. A factor that gate and up or
// several experts share counts once. Of the embedding's A it counts a row a token.
size_t adapter_step_bytes(const ModelConfig& config, const Adapter& adapter, int64_t num_tokens);

}  // namespace braid

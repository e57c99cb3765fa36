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

// Bytes of a model's weights by how often a step reads them.
struct WeightBytes {
  size_t always = 0;         // every matrix with its scales, and every norm
  size_t embedding_row = 0;  // once a token
  size_t experts = 0;        // of all layers; those that tokens touch
};

WeightBytes bytes_of(const ModelConfig& config, const DecoderWeights& weights);

// Bytes of weights a decode step of num_tokens base tokens reads, with expected_experts() experts.
size_t step_bytes(const ModelConfig& config, const WeightBytes& weights, int64_t num_tokens);

// Bytes of an adapter's factors that a decode step reads when num_tokens of its tokens use it: its
// dense factors once, the factors of expected_experts() experts. A factor that gate and up or
// several experts share counts once. Of the embedding's A it counts a row a token.
size_t adapter_step_bytes(const ModelConfig& config, const Adapter& adapter, int64_t num_tokens);

}  // namespace braid

#pragma once

#include <cstdint>
#include <optional>

#include "braid/engine.h"
#include "server/json_fields.h"

namespace braid::server {

// The sampling fields that all generating routes share, by their OpenAI and vLLM names:
// temperature, top_p, top_k, min_p, the three penalties, seed, stop, stop_token_ids, ignore_eos,
// min_tokens, logit_bias, skip_special_tokens, and what the reply must look like
// (grammar_fields.h). top_k -1 means all. `has_seed` says whether there was one. Ranges are checked
// by the engine, how many strings and tokens there are here.
void read_sampling(JsonFields& fields, SamplingParams& params, bool& has_seed);

// The seed of sample `index` of a request that asks for several: index 0 keeps the seed.
uint64_t seed_of_sample(uint64_t seed, int32_t index);

}  // namespace braid::server

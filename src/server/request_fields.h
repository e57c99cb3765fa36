#pragma once

#include <string_view>

#include "server/generation_request.h"
#include "server/json_fields.h"

namespace braid::server {

// What the two OpenAI routes share: model, lora_path, stream and its options, n, the sampling
// fields, priority, return_token_ids and their like. `shared` takes what is the same for every
// prompt.
void read_common(JsonFields& fields, GenerationRequest& request, GenerationRequest::Prompt& shared);

// Complains if the field is there and not false or empty.
void refuse_field(JsonFields& fields, std::string_view key, std::string_view why);

// Complains if the prompts times n are more choices than one request may have.
void check_choices(JsonFields& fields, int32_t n, const RequestDefaults& defaults);

// Gives every prompt what they share.
void spread(const GenerationRequest::Prompt& shared, GenerationRequest& request);

}  // namespace braid::server

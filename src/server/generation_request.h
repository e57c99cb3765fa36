#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "braid/engine.h"
#include "server/api_error.h"
#include "server/backend.h"

namespace braid::server {

// A client's request to generate, whichever route it came by, read and tokenized.
struct GenerationRequest {
  struct Prompt {
    std::vector<int32_t> tokens;
    std::string text;                 // as given; "" where it was given as tokens
    std::optional<std::string> lora;  // lora_path: an adapter; "" for the base model
    SamplingParams sampling;
    bool has_seed = false;
    int32_t n = 1;  // samples
  };

  std::string model;  // as asked; "" where the route has none
  std::vector<Prompt> prompts;
  bool is_batch = false;  // /generate: the answer is a list
  int32_t priority = 0;
  std::string client_id;  // "rid": what the client calls it

  bool stream = false;
  bool include_usage = false;         // a last chunk with the usage
  bool include_usage_always = false;  // every chunk has the usage so far
  bool echo = false;                  // the prompt stands in front of the text
  bool drops_reply = false;           // max_tokens 0: only the prompt was of interest
  bool include_stop_string = false;   // the stop string is part of the text
  bool return_token_ids = false;
  bool return_cached_details = false;
  bool has_logprobs = false;             // of the reply
  bool has_prompt_logprobs = false;      // as a field of their own (vLLM)
  int32_t logprob_start = -1;            // /generate: first prompt token with a log probability
  bool return_text_in_logprobs = false;  // /generate

  int32_t num_choices() const;
};

// What a server adds to a request where it says nothing.
struct RequestDefaults {
  SamplingParams sampling;     // of the model
  int32_t max_choices = 1024;  // prompts times samples of one request
};

// POST /v1/completions.
ApiResult<GenerationRequest> read_completion_request(const Json& body, const TextModel& model,
                                                     const RequestDefaults& defaults);
// POST /v1/chat/completions.
ApiResult<GenerationRequest> read_chat_request(const Json& body, const TextModel& model,
                                               const RequestDefaults& defaults);
// POST /generate, SGLang's own.
ApiResult<GenerationRequest> read_generate_request(const Json& body, const TextModel& model,
                                                   const RequestDefaults& defaults);

// The engine's requests, one for each choice, in the order of choices. adapter_of_prompt has one
// entry a prompt. Samples without a seed of their own get random_seed's.
std::vector<Request> engine_requests(const GenerationRequest& request,
                                     const std::vector<AdapterId>& adapter_of_prompt,
                                     uint64_t random_seed);

// Errors  400, with what is wrong with the JSON
ApiResult<Json> parse_body(const std::string& body);

}  // namespace braid::server

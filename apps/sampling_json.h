#pragma once

#include <string_view>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "braid/engine.h"

namespace braid::apps {

// Keys of sampling_from_json: the fields of SamplingParams by name.
std::vector<std::string_view> sampling_keys();

// Sampling parameters out of a JSON object, the one way for all that reaches the command: a line of
// --input and the options of the command line. A field that is absent or null keeps its default.
//
//   temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty  numbers
//   top_k, max_tokens, min_tokens, seed, logprobs, prompt_logprobs                      integers
//   ignore_eos                                                                          true, false
//   stop             a string, or an array of them
//   stop_token_ids   an array of token ids
//   logit_bias       an object from token id to bias: {"42": -100}
//
// Errors  kInvalidArgument  a key is unknown, a value of another type or out of range: key, value
//                           and what is accepted. Token ids are held against the vocabulary by
//                           Engine::submit only.
Result<SamplingParams> sampling_from_json(const Json& fields, SamplingParams defaults);

}  // namespace braid::apps

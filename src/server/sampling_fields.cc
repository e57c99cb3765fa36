#include "server/sampling_fields.h"

#include <fmt/format.h>

#include <string>

#include "base/json.h"
#include "server/grammar_fields.h"

namespace braid::server {
namespace {

// Any integer, as PyTorch takes seeds: a negative one is its two's complement.
void read_seed(JsonFields& fields, SamplingParams& params, bool& has_seed) {
  const Json* value = fields.find("seed");
  if (value == nullptr) return;
  if (!value->is_number_integer()) {
    fields.complain_of("seed", *value, "an integer of 64 bits");
    return;
  }
  params.seed = value->is_number_unsigned() ? value->get<uint64_t>()
                                            : static_cast<uint64_t>(value->get<int64_t>());
  has_seed = true;
}

// Every sample of a request has its own copy of these, and each token is held against them.
constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr size_t kMaxStopTokens = 1024;
constexpr size_t kMaxBiases = 4096;

void check_sizes(JsonFields& fields, const SamplingParams& params) {
  const auto check = [&](const char* key, size_t size, size_t most, const char* what) {
    if (size > most) {
      fields.complain(key, fmt::format("{} has {} {}, accepted are {}", key, size, what, most));
    }
  };
  check("stop", params.stop.size(), kMaxStops, "strings");
  for (const std::string& stop : params.stop)
    check("stop", stop.size(), kMaxStopBytes, "bytes in one string");
  check("stop_token_ids", params.stop_token_ids.size(), kMaxStopTokens, "tokens");
  check("logit_bias", params.logit_bias.size(), kMaxBiases, "tokens");
}

}  // namespace

void read_sampling(JsonFields& fields, SamplingParams& params, bool& has_seed) {
  fields.read_number("temperature", params.temperature);
  fields.read_number("top_p", params.top_p);
  fields.read_integer("top_k", params.top_k);
  if (params.top_k == -1) params.top_k = 0;
  fields.read_number("min_p", params.min_p);
  fields.read_number("repetition_penalty", params.repetition_penalty);
  fields.read_number("presence_penalty", params.presence_penalty);
  fields.read_number("frequency_penalty", params.frequency_penalty);
  read_seed(fields, params, has_seed);
  if (const Json* stop = fields.find("stop"); stop != nullptr && stop->is_string()) {
    params.stop = {stop->get<std::string>()};
  } else {
    fields.read("stop", params.stop, "a string or an array of strings");
  }
  // Clients send "" and [""] for none.
  std::erase(params.stop, "");
  fields.read("stop_token_ids", params.stop_token_ids, "an array of token ids");
  fields.read_bool("ignore_eos", params.ignore_eos);
  fields.read_bool("skip_special_tokens", params.skip_special_tokens);
  fields.read_integer("min_tokens", params.min_tokens);
  read_grammar(fields, params.grammar);
  fields.read("logit_bias", params.logit_bias,
              "an object from token id to bias, as {\"42\": -100}");
  check_sizes(fields, params);
}

uint64_t seed_of_sample(uint64_t seed, int32_t index) {
  if (index == 0) return seed;
  // SplitMix64: neighbouring indices give unrelated seeds.
  uint64_t x = seed + 0x9E3779B97F4A7C15u * static_cast<uint64_t>(index);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace braid::server

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "engine/sampler.h"

namespace braid {
namespace {

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 4096;
constexpr int32_t kMaxLogprobs = 20;

// Written so that NaN is outside of every range.
bool is_within(float value, float low, float high) { return value >= low && value <= high; }

}  // namespace

std::string why_invalid(const SamplingParams& p, int32_t vocab_size) {
  const auto number = [](const char* field, auto value, const char* accepted) {
    return fmt::format("{} is {}, accepted is {}", field, value, accepted);
  };
  if (!(p.temperature >= 0) || !std::isfinite(p.temperature))
    return number("temperature", p.temperature, "a finite number from 0");
  if (p.top_k < 0) return number("top_k", p.top_k, "a number from 1, or 0 to keep all");
  if (!(p.top_p > 0 && p.top_p <= 1)) return number("top_p", p.top_p, "above 0 and up to 1");
  if (!is_within(p.min_p, 0, 1)) return number("min_p", p.min_p, "0 to 1");
  if (!(p.repetition_penalty > 0) || !std::isfinite(p.repetition_penalty))
    return number("repetition_penalty", p.repetition_penalty, "a finite number above 0");
  if (!is_within(p.presence_penalty, -2, 2))
    return number("presence_penalty", p.presence_penalty, "-2 to 2");
  if (!is_within(p.frequency_penalty, -2, 2))
    return number("frequency_penalty", p.frequency_penalty, "-2 to 2");
  if (p.max_tokens < 1) return number("max_tokens", p.max_tokens, "a number from 1");
  if (p.min_tokens < 0 || p.min_tokens > p.max_tokens)
    return number("min_tokens", p.min_tokens, "0 to max_tokens");
  for (const auto& [field, value] :
       {std::pair{"logprobs", p.logprobs}, std::pair{"prompt_logprobs", p.prompt_logprobs}}) {
    if (value && (*value < 0 || *value > kMaxLogprobs)) return number(field, *value, "0 to 20");
  }
  for (const int32_t token : p.stop_token_ids) {
    if (token < 0 || token >= vocab_size)
      return fmt::format("stop_token_ids has {}, the vocabulary ends at {}", token, vocab_size - 1);
  }
  for (const auto& [token, bias] : p.logit_bias) {
    if (token < 0 || token >= vocab_size)
      return fmt::format("logit_bias names token {}, the vocabulary ends at {}", token,
                         vocab_size - 1);
    if (!is_within(bias, -100, 100))
      return fmt::format("logit_bias of token {} is {}, accepted is -100 to 100", token, bias);
  }
  if (p.stop.size() > kMaxStops)
    return fmt::format("stop has {} strings, accepted are up to {}", p.stop.size(), kMaxStops);
  for (const std::string& stop : p.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes)
      return fmt::format("a stop string has {} bytes, accepted are 1 to {}", stop.size(),
                         kMaxStopBytes);
    // A stop string that starts inside a character would split it.
    if ((static_cast<unsigned char>(stop.front()) & 0xC0u) == 0x80u)
      return "a stop string starts in the middle of a UTF-8 character, accepted is valid UTF-8";
  }
  return {};
}

}  // namespace braid

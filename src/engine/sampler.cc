#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/philox.h"
#include "engine/logprobs.h"

namespace braid {

Sampler::Sampler(const SamplingParams& params, std::span<const int32_t> prompt,
                 std::span<const int32_t> end_tokens, grammar::Matcher* matcher)
    : params_(params),
      has_penalties_(params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                     params.frequency_penalty != 0.0f),
      matcher_(matcher) {
  if (params.min_tokens > 0 || matcher_ != nullptr)
    end_tokens_.assign(end_tokens.begin(), end_tokens.end());
  if (has_penalties_) {
    for (const int32_t token : prompt) seen_[token].in_prompt = true;
  }
}

Pick Sampler::pick_on_device(int64_t position, int32_t num_generated) const {
  const bool rules_out_end = num_generated < params_.min_tokens && !end_tokens_.empty();
  if (has_penalties_ || !params_.logit_bias.empty() || matcher_ != nullptr || rules_out_end ||
      params_.logprobs)
    return {};
  return {.wants_logits = false,
          .temperature = params_.temperature,
          .top_k = params_.top_k,
          .top_p = params_.top_p,
          .min_p = params_.min_p,
          .seed = params_.seed,
          .position = position};
}

void Sampler::count(int32_t token) {
  if (has_penalties_) ++seen_[token].in_reply;
}

void Sampler::set_logit(std::span<float> logits, int32_t token, float value) {
  originals_.emplace_back(token, logits[token]);
  logits[token] = value;
}

void Sampler::restore(std::span<float> logits, size_t num_changes) {
  for (; originals_.size() > num_changes; originals_.pop_back())
    logits[originals_.back().first] = originals_.back().second;
}

void Sampler::change_logits(std::span<float> logits) {
  for (const auto& [token, bias] : params_.logit_bias)
    set_logit(logits, token, logits[token] + bias);
  for (const auto& [token, seen] : seen_) {
    float logit = logits[token];
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    if (seen.in_reply > 0) {
      logit -= params_.presence_penalty;
      logit -= params_.frequency_penalty * static_cast<float>(seen.in_reply);
    }
    set_logit(logits, token, logit);
  }
}

void Sampler::rule_out_end(std::span<float> logits) {
  for (const int32_t token : end_tokens_)
    set_logit(logits, token, -std::numeric_limits<float>::infinity());
}

void Sampler::apply(const grammar::Mask& mask, std::span<float> logits) const {
  BRAID_CHECK_EQ(mask.words.size(), (logits.size() + 63) / 64);
  std::vector<float> ends;
  for (const int32_t token : end_tokens_) ends.push_back(logits[token]);
  for (size_t w = 0; w < mask.words.size(); ++w) {
    const uint64_t word = mask.words[w];
    if (word == ~uint64_t{0}) continue;
    const size_t end = std::min(logits.size(), (w + 1) * 64);
    for (size_t id = w * 64; id < end; ++id) {
      if ((word >> (id % 64) & 1u) == 0) logits[id] = -std::numeric_limits<float>::infinity();
    }
  }
  if (!mask.may_end) return;
  for (size_t i = 0; i < ends.size(); ++i) logits[end_tokens_[i]] = ends[i];
}

std::string why_unusable(std::span<const float> logits, int64_t position) {
  float largest = -std::numeric_limits<float>::infinity();
  bool has_nan = false;
  for (const float logit : logits) {
    has_nan |= logit != logit;
    largest = logit > largest ? logit : largest;
  }
  if (!has_nan && std::isfinite(largest)) return {};
  return fmt::format(
      "the model's logits for position {} {}; its weights or the adapter's are broken", position,
      has_nan ? "contain NaN" : "have no finite maximum");
}

Result<Sampler::Sample> Sampler::sample(std::span<float> logits, int64_t position,
                                        int32_t num_generated) {
  if (auto why = why_unusable(logits, position); !why.empty())
    return fail(ErrorCode::kCorrupt, "{}", why);
  std::span<float> changed = logits;
  originals_.clear();
  if (matcher_ != nullptr) {
    const auto mask = matcher_->mask();
    if (!mask) return fail(mask.error().code, "{}", mask.error().message);
    masked_.assign(logits.begin(), logits.end());
    changed = masked_;
    change_logits(changed);
    apply(**mask, changed);
  } else {
    change_logits(changed);
  }
  const bool needs_more = num_generated < params_.min_tokens;
  const size_t num_changes = originals_.size();
  if (needs_more) rule_out_end(changed);
  int32_t token = pick(changed, position);
  if (token < 0 && needs_more && matcher_ != nullptr) {
    // An end token of the request is all that the grammar allows here: it is text then.
    restore(changed, num_changes);
    token = pick(changed, position);
  }
  restore(changed, 0);
  if (token < 0) {
    return fail(ErrorCode::kCorrupt,
                "logit_bias, penalties, min_tokens{} leave no possible token at position {}",
                matcher_ != nullptr ? ", and a grammar" : "", position);
  }
  Sample result = {.token = token};
  if (params_.logprobs) result.logprob = compute_logprob(logits, token, *params_.logprobs);
  return result;
}

int32_t Sampler::pick(std::span<const float> logits, int64_t position) {
  int32_t token = -1;
  float largest = -std::numeric_limits<float>::infinity();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] > largest) {
      largest = logits[id];
      token = static_cast<int32_t>(id);
    }
  }
  // A penalty near 0 can make a logit infinite: there is nothing to draw from then.
  if (token < 0 || params_.temperature == 0 || !std::isfinite(largest)) return token;
  return draw(logits, largest, position);
}

int32_t Sampler::draw(std::span<const float> logits, float largest, int64_t position) {
  float threshold = -std::numeric_limits<float>::infinity();
  const auto vocab_size = static_cast<int64_t>(logits.size());
  if (params_.top_k > 0 && params_.top_k < vocab_size) {
    scratch_.assign(logits.begin(), logits.end());
    const auto kth = scratch_.begin() + (params_.top_k - 1);
    std::nth_element(scratch_.begin(), kth, scratch_.end(), std::greater<>());
    threshold = *kth;
  }

  candidates_.clear();
  double total = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] < threshold) continue;
    const double weight =
        std::exp((static_cast<double>(logits[id]) - largest) / params_.temperature);
    if (weight == 0) continue;
    candidates_.push_back({static_cast<int32_t>(id), logits[id], weight});
    total += weight;
  }

  if (params_.top_p < 1) {
    // Tokens under (1 - top_p) / n each cannot reach 1 - top_p together, so all of them are cut:
    // only the few above have to be sorted. The factor leaves room for rounding, so that at least
    // the largest stays.
    const double least =
        0.999 * (1.0 - params_.top_p) * total / static_cast<double>(candidates_.size());
    auto end = std::partition(candidates_.begin(), candidates_.end(),
                              [&](const Candidate& c) { return c.weight >= least; });
    std::sort(candidates_.begin(), end, [](const Candidate& a, const Candidate& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
    });
    const double wanted = params_.top_p * total;
    double sum = 0;
    auto last = candidates_.begin();
    while (last != end && sum < wanted) sum += (last++)->weight;
    candidates_.erase(last, candidates_.end());
  }
  // The largest weight is exp(0) = 1, so min_p is a bound on the weight itself.
  if (params_.min_p > 0)
    std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < params_.min_p; });

  total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  const double target = philox_uniform(params_.seed, static_cast<uint64_t>(position)) * total;
  double sum = 0;
  for (const Candidate& c : candidates_) {
    sum += c.weight;
    if (sum > target) return c.token;
  }
  return candidates_.back().token;
}

}  // namespace braid

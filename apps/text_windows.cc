#include "apps/text_windows.h"

#include <algorithm>
#include <cmath>

namespace braid::apps {

Result<std::vector<TextWindow>> text_windows(int64_t num_tokens, int32_t window, int32_t stride) {
  if (num_tokens < 2) {
    return fail(ErrorCode::kInvalidArgument,
                "the text has {} token(s), need 2: a token is scored by what stands before it",
                num_tokens);
  }
  if (window < 2) return fail(ErrorCode::kInvalidArgument, "--window {}, need at least 2", window);
  if (stride < 1 || stride >= window) {
    return fail(ErrorCode::kInvalidArgument, "--stride {}, need 1 to {}, below --window", stride,
                window - 1);
  }
  std::vector<TextWindow> windows = {
      {.begin = 0, .end = std::min<int64_t>(window, num_tokens), .first_scored = 1}};
  while (windows.back().end < num_tokens) {
    const int64_t scored = windows.back().end, end = std::min(scored + stride, num_tokens);
    windows.push_back(
        {.begin = std::max<int64_t>(0, end - window), .end = end, .first_scored = scored});
  }
  return windows;
}

double TextScore::perplexity() const { return std::exp(-mean_logprob()); }

double TextScore::standard_error() const {
  const auto n = static_cast<double>(num_tokens_);
  const double variance = std::max(0.0, squares_ / n - mean_logprob() * mean_logprob());
  return perplexity() * std::sqrt(variance / n);
}

}  // namespace braid::apps

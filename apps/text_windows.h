#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace braid::apps {

// A part of a long text that is scored as one prompt: the tokens from first_scored on count, those
// before them are what the model knows by then.
struct TextWindow {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t first_scored = 0;  // in [begin + 1, end)
};

// Windows of up to `window` tokens, each `stride` behind the one before, that score every token of
// the text but its first exactly once. All but those of the first window know at least
// window - stride tokens.
//
// Errors  kInvalidArgument  num_tokens < 2, window < 2, or stride outside of [1, window - 1]
Result<std::vector<TextWindow>> text_windows(int64_t num_tokens, int32_t window, int32_t stride);

// What a text is to a model, from the log probabilities of its tokens.
class TextScore {
 public:
  void add(float logprob) {
    sum_ += double{logprob};
    squares_ += double{logprob} * double{logprob};
    ++num_tokens_;
  }

  int64_t num_tokens() const { return num_tokens_; }
  double mean_logprob() const { return sum_ / static_cast<double>(num_tokens_); }
  // exp(-mean_logprob())
  double perplexity() const;
  // Of the perplexity, as if tokens were independent.
  double standard_error() const;

 private:
  double sum_ = 0;
  double squares_ = 0;
  int64_t num_tokens_ = 0;
};

}  // namespace braid::apps

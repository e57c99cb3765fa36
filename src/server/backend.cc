#include "server/backend.h"

#include <iterator>
#include <utility>

namespace braid::server {

void append(Event& sum, Event next) {
  sum.tokens.insert(sum.tokens.end(), next.tokens.begin(), next.tokens.end());
  sum.text += next.text;
  std::move(next.logprobs.begin(), next.logprobs.end(), std::back_inserter(sum.logprobs));
  if (!next.prompt_logprobs.empty()) sum.prompt_logprobs = std::move(next.prompt_logprobs);
  sum.tag = next.tag;
  sum.finished = next.finished;
  sum.reason = next.reason;
  sum.matched_stop = std::move(next.matched_stop);
  sum.error = std::move(next.error);
  sum.error_code = next.error_code;
  sum.prompt_tokens = next.prompt_tokens;
  sum.cached_tokens = next.cached_tokens;
  sum.completion_tokens = next.completion_tokens;
  sum.times = next.times;
}

}  // namespace braid::server

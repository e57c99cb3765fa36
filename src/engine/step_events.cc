#include "engine/step_events.h"

namespace braid {

void StepEvents::add(const TokenEvent& event) {
  if (num_kept_ == kept_.size()) kept_.emplace_back();
  Kept& kept = kept_[num_kept_++];
  kept.event = event;
  kept.tokens.assign(event.tokens.begin(), event.tokens.end());
  kept.text = event.text;
  kept.logprobs.assign(event.logprobs.begin(), event.logprobs.end());
  kept.prompt_logprobs.assign(event.prompt_logprobs.begin(), event.prompt_logprobs.end());
  kept.matched_stop = event.matched_stop;
  kept.error = event.error;
}

void StepEvents::deliver(const OnStep& on_step) {
  if (num_kept_ == 0) return;
  events_.clear();
  for (size_t i = 0; i < num_kept_; ++i) {
    const Kept& kept = kept_[i];
    TokenEvent& event = events_.emplace_back(kept.event);
    event.tokens = kept.tokens;
    event.text = kept.text;
    event.logprobs = kept.logprobs;
    event.prompt_logprobs = kept.prompt_logprobs;
    event.matched_stop = kept.matched_stop;
    event.error = kept.error;
  }
  num_kept_ = 0;
  try {
    on_step(events_);
  } catch (...) {
    // Nobody is left to tell; the requests go on.
  }
}

}  // namespace braid

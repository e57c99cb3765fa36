#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "braid/engine.h"

namespace braid {

// The events of one step with all that they point to, until they are handed over in one call.
// Keeps its memory from step to step.
class StepEvents {
 public:
  void add(const TokenEvent& event);

  // Calls on_step once if there are events, and forgets them. What it throws is dropped: the events
  // count as delivered.
  void deliver(const OnStep& on_step);

 private:
  struct Kept {
    TokenEvent event;  // its views are set by deliver()
    std::vector<int32_t> tokens;
    std::string text;
    std::vector<TokenLogprob> logprobs;
    std::vector<TokenLogprob> prompt_logprobs;
    std::string matched_stop;
    std::string error;
  };

  std::vector<Kept> kept_;  // the first num_kept_ are in use
  size_t num_kept_ = 0;
  std::vector<TokenEvent> events_;
};

}  // namespace braid

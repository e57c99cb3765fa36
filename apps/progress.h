#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "apps/terminal.h"

namespace braid::apps {

// How far long work has come, on stderr: one line redrawn in place on a terminal; when piped, a
// plain line at the start and then at each tenth or every ten seconds, whichever is rarer.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `what` is "load weights", "quantize", ...; a new `what` ends the line of the last one as done.
  // Cheap to call often. `total` 0: unknown. From one thread at a time.
  void update(std::string_view what, int64_t done, int64_t total);

  // Ends the current line: as done, or where the work failed as far as it came. The destructor
  // takes what is not finished for failed.
  void finish(bool ok);

  // Ends the current line without a word: nobody waits for the work any more.
  void abandon();

 private:
  using Clock = std::chrono::steady_clock;

  enum class State { kRunning, kDone, kFailed };

  void draw(State state);

  Terminal terminal_;
  std::string what_;
  int64_t done_ = 0;
  int64_t total_ = 0;
  Clock::time_point begin_;
  Clock::time_point drawn_;
  int64_t tenths_drawn_ = 0;
};

}  // namespace braid::apps

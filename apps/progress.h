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

  // `what` is "load weights", "quantize", ...; a new `what` ends the line of the last one. Cheap to
  // call often. `total` 0: unknown. From one thread at a time.
  void update(std::string_view what, int64_t done, int64_t total);

  // Ends the current line. Called by the destructor too.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  void draw(int64_t done, int64_t total, bool last);

  Terminal terminal_;
  std::string what_;
  int64_t done_ = 0;
  int64_t total_ = 0;
  Clock::time_point begin_;
  Clock::time_point drawn_;
  int64_t tenths_drawn_ = 0;
};

}  // namespace braid::apps

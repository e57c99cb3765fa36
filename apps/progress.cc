#include "apps/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace braid::apps {

using namespace std::chrono_literals;

Progress::Progress() : terminal_(terminal_of(STDERR_FILENO)) {}
Progress::~Progress() { finish(); }

void Progress::update(std::string_view what, int64_t done, int64_t total) {
  const auto now = Clock::now();
  if (what != what_) {
    finish();
    what_ = what;
    begin_ = now;
    drawn_ = {};
    tenths_drawn_ = 0;
  }
  done_ = done;
  total_ = total;
  if (terminal_.is_tty) {
    if (now - drawn_ < 100ms && done < total) return;
  } else {
    const int64_t tenths = total > 0 ? done * 10 / total : 0;
    const bool due =
        drawn_ == Clock::time_point{} || (tenths > tenths_drawn_ && now - drawn_ > 10s);
    if (!due) return;
    tenths_drawn_ = tenths;
  }
  drawn_ = now;
  draw(done, total, false);
}

void Progress::draw(int64_t done, int64_t total, bool last) {
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  const int percent = total > 0 ? static_cast<int>(std::min(done, total) * 100 / total) : 0;
  if (!terminal_.is_tty) {
    if (last) {
      fmt::print(stderr, "{}: done in {:.1f} s\n", what_, seconds);
    } else {
      fmt::print(stderr, "{}: {} %\n", what_, percent);
    }
    return;
  }
  constexpr int kCells = 30;
  const int filled = last ? kCells : percent * kCells / 100;
  std::string bar;
  for (int i = 0; i < kCells; ++i) bar += i < filled ? "\xe2\x94\x81" : "\xe2\x94\x80";
  fmt::print(stderr, "\r\x1b[K{:<14} {} {:>3} %  {:.1f} s{}", what_, green(terminal_, bar),
             last ? 100 : percent, seconds, last ? "\n" : "");
  std::fflush(stderr);
}

void Progress::finish() {
  if (what_.empty()) return;
  draw(total_, total_, true);
  what_.clear();
}

}  // namespace braid::apps

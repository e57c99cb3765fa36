#include "apps/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace braid::apps {

using namespace std::chrono_literals;

Progress::Progress() : terminal_(terminal_of(STDERR_FILENO)) {}
Progress::~Progress() { finish(false); }

void Progress::update(std::string_view what, int64_t done, int64_t total) {
  const auto now = Clock::now();
  if (what != what_) {
    finish(true);
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
  draw(State::kRunning);
}

void Progress::draw(State state) {
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  const int reached = total_ > 0 ? static_cast<int>(std::min(done_, total_) * 100 / total_) : 0;
  // What failed is not complete, even if the last step did it.
  const int percent = state == State::kDone     ? 100
                      : state == State::kFailed ? std::min(reached, 99)
                                                : reached;
  if (!terminal_.is_tty) {
    switch (state) {
      case State::kRunning:
        return write_err(fmt::format("{}: {} %\n", what_, percent));
      case State::kDone:
        return write_err(fmt::format("{}: done in {:.1f} s\n", what_, seconds));
      case State::kFailed:
        return write_err(
            fmt::format("{}: failed at {} % after {:.1f} s\n", what_, percent, seconds));
    }
  }
  constexpr int kCells = 30;
  const int filled = percent * kCells / 100;
  std::string bar;
  for (int i = 0; i < kCells; ++i) bar += i < filled ? "\xe2\x94\x81" : "\xe2\x94\x80";
  const bool failed = state == State::kFailed;
  write_err(fmt::format("\r\x1b[K{:<14} {} {:>3} %  {:.1f} s{}{}", what_,
                        failed ? red(terminal_, bar) : green(terminal_, bar), percent, seconds,
                        failed ? "  failed" : "", state == State::kRunning ? "" : "\n"));
}

void Progress::finish(bool ok) {
  if (what_.empty()) return;
  draw(ok ? State::kDone : State::kFailed);
  what_.clear();
}

void Progress::abandon() {
  if (!what_.empty() && terminal_.is_tty) write_err("\n");
  what_.clear();
}

}  // namespace braid::apps

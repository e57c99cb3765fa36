#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace braid::apps {

// What the terminal behind a stream can show. Colours are off when the stream is piped or the
// environment has NO_COLOR (https://no-color.org) or TERM=dumb.
struct Terminal {
  bool is_tty = false;
  bool colour = false;
  int columns = 80;
};

Terminal terminal_of(int file_descriptor);

// Writes to standard output and flushes it. Throws std::system_error where that fails, with
// std::errc::broken_pipe when the reader has gone (`braid ... | head`).
void write_out(std::string_view text);

// Writes to standard error. Failure is ignored: nobody is left to hear of it.
void write_err(std::string_view text);

// The text in bold, dim, green or red, where the terminal shows colours.
std::string bold(const Terminal& terminal, std::string_view text);
std::string dim(const Terminal& terminal, std::string_view text);
std::string green(const Terminal& terminal, std::string_view text);
std::string red(const Terminal& terminal, std::string_view text);

// "1.7 GiB", "264 KiB", "12 B"
std::string human_bytes(uint64_t bytes);

// "30.5 B" parameters, "12.3 k" tokens: powers of 1000.
std::string human_count(uint64_t count);

// Columns a UTF-8 text takes, counting one for each code point.
int display_width(std::string_view utf8);

// Breaks text into lines of at most `width` columns at spaces where it can; keeps its own line
// ends.
std::string wrap(std::string_view utf8, int width);

// A text from a model or a file as it may be shown: control characters other than line feed and tab
// become U+FFFD, and so do bytes that are not UTF-8, so that no file can steer the terminal.
std::string printable(std::string_view utf8);

}  // namespace braid::apps

#include "apps/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "text/utf8.h"

namespace braid::apps {
namespace {

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

std::string paint(const Terminal& terminal, const char* code, std::string_view text) {
  return terminal.colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

std::string scaled(uint64_t value, double step, std::array<const char*, 6> units) {
  if (static_cast<double>(value) < step) return fmt::format("{}{}", value, units[0]);
  double x = static_cast<double>(value);
  size_t unit = 0;
  while (x >= step && unit + 1 < units.size()) x /= step, ++unit;
  return fmt::format("{:.{}f}{}", x, x < 9.95 ? 2 : x < 99.5 ? 1 : 0, units[unit]);
}

bool starts_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

}  // namespace

Terminal terminal_of(int file_descriptor) {
  Terminal terminal;
  terminal.is_tty = ::isatty(file_descriptor) == 1;
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::string_view(term) == "dumb";
  terminal.colour = terminal.is_tty && !is_set("NO_COLOR") && !dumb;
  winsize size = {};
  if (terminal.is_tty && ::ioctl(file_descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) {
    terminal.columns = size.ws_col;
  }
  return terminal;
}

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) < text.size() || std::fflush(stdout) != 0)
    throw std::system_error(errno, std::generic_category(), "cannot write to standard output");
}

void write_err(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

std::string bold(const Terminal& t, std::string_view text) { return paint(t, "1", text); }
std::string dim(const Terminal& t, std::string_view text) { return paint(t, "2", text); }
std::string green(const Terminal& t, std::string_view text) { return paint(t, "32", text); }
std::string red(const Terminal& t, std::string_view text) { return paint(t, "31", text); }

std::string human_bytes(uint64_t bytes) {
  return scaled(bytes, 1024, {" B", " KiB", " MiB", " GiB", " TiB", " PiB"});
}

std::string human_count(uint64_t count) {
  return scaled(count, 1000, {"", " k", " M", " B", " T", " P"});
}

int display_width(std::string_view utf8) {
  int width = 0;
  for (const char c : utf8) width += starts_character(c) ? 1 : 0;
  return width;
}

std::string wrap(std::string_view utf8, int width) {
  std::string out;
  int column = 0;
  size_t at = 0;
  while (at < utf8.size()) {
    if (utf8[at] == '\n' || utf8[at] == ' ') {
      const char c = utf8[at++];
      if (c == '\n') {
        out += '\n', column = 0;
      } else if (column > 0 && column < width) {
        out += ' ', ++column;
      }
      continue;
    }
    size_t end = utf8.find_first_of(" \n", at);
    if (end == utf8.npos) end = utf8.size();
    const std::string_view word = utf8.substr(at, end - at);
    const int word_width = display_width(word);
    if (column > 0 && column + word_width > width) {
      if (out.back() == ' ') out.pop_back();
      out += '\n', column = 0;
    }
    for (const char c : word) {
      if (starts_character(c) && column == width) out += '\n', column = 0;
      out += c;
      column += starts_character(c) ? 1 : 0;
    }
    at = end;
  }
  return out;
}

std::string printable(std::string_view utf8) {
  std::string out;
  out.reserve(utf8.size());
  for (size_t at = 0; at < utf8.size();) {
    const text::Utf8Unit unit = text::read_utf8(utf8, at);
    const char32_t c = unit.code_point;
    const bool control =
        c == 0x7f || (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x80 && c < 0xa0);  // C1
    if (unit.kind != text::Utf8Unit::Kind::kChar || control) {
      out += text::kReplacementChar;
    } else {
      out += utf8.substr(at, static_cast<size_t>(unit.size));
    }
    at += static_cast<size_t>(unit.size);
  }
  return out;
}

}  // namespace braid::apps

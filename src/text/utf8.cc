#include "text/utf8.h"

#include "base/check.h"

namespace braid::text {

Utf8Unit read_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {Utf8Unit::Kind::kChar, 1, lead};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Unit::Kind::kBroken, 1, 0};
  const int32_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t code_point = lead & (0x7F >> size);
  for (int32_t i = 1; i < size; ++i) {
    if (at + i >= text.size()) return {Utf8Unit::Kind::kPartial, i, 0};
    const uint8_t next = byte(at + i);
    uint8_t low = 0x80, high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;   // shorter forms exist
      if (lead == 0xED) high = 0x9F;  // surrogates
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;  // past U+10FFFF
    }
    if (next < low || next > high) return {Utf8Unit::Kind::kBroken, i, 0};
    code_point = (code_point << 6) | (next & 0x3F);
  }
  return {Utf8Unit::Kind::kChar, size, code_point};
}

char32_t next_char(std::string_view text, size_t& at) {
  const Utf8Unit unit = read_utf8(text, at);
  at += unit.size;
  return unit.code_point;
}

size_t find_broken_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = read_utf8(text, at);
    if (unit.kind != Utf8Unit::Kind::kChar) return at;
    at += unit.size;
  }
  return std::string_view::npos;
}

void append_utf8(std::string& out, char32_t c) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    tail(6);
    tail(0);
  } else {
    BRAID_CHECK(c <= 0x10FFFF);
    out += static_cast<char>(0xF0 | (c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Unit unit = read_utf8(bytes, at);
    if (unit.kind == Utf8Unit::Kind::kChar) {
      out += bytes.substr(at, unit.size);
    } else {
      out += kReplacementChar;
    }
    at += unit.size;
  }
  return out;
}

size_t count_chars(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return n;
}

}  // namespace braid::text
